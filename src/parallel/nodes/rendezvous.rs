//! How the nodes of a run find each other: node 0 waits at an address, the others call there.
//!
//! Each says what it is about to do; node 0 lets nobody begin unless all say the same. Whoever does
//! not speak like a node is not listened to. There are no passwords: the address is to be reached
//! by the run's own machines only.

use super::frame::{VERSION, wrong};
use super::{NodeFailure, Nodes, Place};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Who meets, and where.
#[derive(Clone, Debug)]
pub struct Meeting {
    /// Where this process stands.
    pub place: Place,
    /// Node 0's host: a name or an address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Longest wait for the others, at the start and in a call.
    pub timeout: Duration,
    /// The build, which must be the same on all nodes.
    pub build: String,
    /// The run's settings as lines of text, which must be the same on all nodes.
    pub settings: String,
}

/// Why the nodes of a run did not come together.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Node 0 cannot wait there.
    #[error("node 0 cannot wait for the others at {at}")]
    Listen {
        /// The address.
        at: String,
        /// Why.
        source: io::Error,
    },
    /// Node 0 does not answer.
    #[error("node 0 does not answer at {at} within {seconds} s")]
    Connect {
        /// The address.
        at: String,
        /// How long it was called.
        seconds: f64,
        /// Why the last call failed.
        source: io::Error,
    },
    /// A node did not come.
    #[error("{missing} did not come to {at} within {seconds} s")]
    Missing {
        /// Which: `node 2`, `nodes 1 and 3`.
        missing: String,
        /// Where it was waited for.
        at: String,
        /// How long.
        seconds: f64,
    },
    /// A node is about to do something else.
    #[error("{0}")]
    Unlike(String),
    /// The connection failed.
    #[error("the connection to node {node} failed")]
    Connection {
        /// The other end.
        node: usize,
        /// Why.
        source: io::Error,
    },
    /// Another node ended the run.
    #[error(transparent)]
    Ended(#[from] NodeFailure),
    /// The stop flag was set.
    #[error("stopped while waiting for the other nodes")]
    Stopped,
}

/// What a node says first, after [`MAGIC`].
#[derive(Debug, Serialize, Deserialize)]
struct Greeting {
    node: usize,
    nodes: usize,
    devices: usize,
    version: u32,
    build: String,
    settings: String,
}

/// What node 0 answers when all are there.
#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    Welcome,
    Unlike(String),
    Failed(NodeFailure),
}

const MAGIC: &[u8; 8] = b"sft-run\n";
/// Longest text of a greeting or an answer.
const LONGEST: u32 = 16 << 20;
/// Time in which a caller has to say its greeting.
const GREETING: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(20);

impl Meeting {
    /// Waits until all nodes are there and agree.
    pub fn join(&self, stop: &AtomicBool) -> Result<Arc<Nodes>, Error> {
        let (streams, node) = match self.place.node {
            0 => (self.gather(stop)?, 0),
            node => (vec![(0, self.call(stop)?)], node),
        };
        let opened = Nodes::open(self.place, self.timeout, streams);
        opened.map_err(|source| Error::Connection { node, source })
    }

    fn at(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    fn greeting(&self) -> Greeting {
        let Place { node, count: nodes, devices } = self.place;
        let (build, settings) = (self.build.clone(), self.settings.clone());
        Greeting { node, nodes, devices, version: VERSION, build, settings }
    }

    /// Node 0's part.
    fn gather(&self, stop: &AtomicBool) -> Result<Vec<(usize, TcpStream)>, Error> {
        let listener = self.listen().map_err(|source| Error::Listen { at: self.at(), source })?;
        let (start, mut here) = (Instant::now(), BTreeMap::new());
        while here.len() + 1 < self.place.count {
            match listener.accept() {
                Ok((stream, _)) => {
                    // Whoever does not speak like a node is not one of ours.
                    let Ok(greeting) = heard(&stream) else { continue };
                    let node = greeting.node;
                    if let Some(unlike) = self.unlike(&greeting, &here) {
                        let told = [stream].into_iter().chain(here.into_values());
                        tell(told, &Answer::Unlike(unlike.clone()));
                        return Err(Error::Unlike(unlike));
                    }
                    here.insert(node, stream);
                }
                Err(_) => thread::sleep(PAUSE),
            }
            if stop.load(Ordering::Relaxed) {
                return Err(Error::Stopped);
            }
            if start.elapsed() >= self.timeout {
                return Err(self.missing(here));
            }
        }
        for (node, stream) in &here {
            let welcomed = say(stream, &Answer::Welcome);
            welcomed.map_err(|source| Error::Connection { node: *node, source })?;
        }
        Ok(here.into_iter().collect())
    }

    /// Waits at the named address only where it is one of this machine's for certain: a name may
    /// stand for another on this machine than on the others.
    fn listen(&self) -> io::Result<TcpListener> {
        let named = match self.host.as_str() {
            "localhost" => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            host => host.parse().ok(),
        };
        let address = named.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let listener = TcpListener::bind((address, self.port))?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    }

    /// What is not alike here and on the node of `greeting`, with both values.
    fn unlike(&self, greeting: &Greeting, here: &BTreeMap<usize, TcpStream>) -> Option<String> {
        let (own, node) = (self.greeting(), greeting.node);
        let number = |value: usize| value.to_string();
        let pairs = [
            ("form of messages", own.version.to_string(), greeting.version.to_string()),
            ("build", own.build, greeting.build.clone()),
            ("number of nodes", number(own.nodes), number(greeting.nodes)),
            (
                "devices of each node (trainer.devices)",
                number(own.devices),
                number(greeting.devices),
            ),
        ];
        if let Some((what, ours, theirs)) = pairs.iter().find(|(_, ours, theirs)| ours != theirs) {
            return Some(format!("the {what} is {ours} on node 0 and {theirs} on node {node}"));
        }
        if let Some((line, ours, theirs)) = first_difference(&own.settings, &greeting.settings) {
            return Some(format!(
                "node {node} has another recipe than node 0: line {line} of the resolved recipe is \
                 `{ours}` on node 0 and `{theirs}` on node {node}"
            ));
        }
        if node == 0 || node >= self.place.count || here.contains_key(&node) {
            return Some(format!(
                "two processes say that they are node {node} of {}: each needs a NODE_RANK of its \
                 own, from 0",
                self.place.count
            ));
        }
        None
    }

    fn missing(&self, here: BTreeMap<usize, TcpStream>) -> Error {
        let gone: Vec<String> = (1..self.place.count)
            .filter(|node| !here.contains_key(node))
            .map(|node| node.to_string())
            .collect();
        let s = if gone.len() == 1 { "" } else { "s" };
        let missing = format!("node{s} {}", gone.join(", "));
        let (at, seconds) = (self.at(), self.timeout.as_secs_f64());
        let error = Error::Missing { missing, at, seconds };
        let failure = NodeFailure::of_work(0, error.to_string());
        tell(here.into_values(), &Answer::Failed(failure));
        error
    }

    /// The others' part.
    fn call(&self, stop: &AtomicBool) -> Result<TcpStream, Error> {
        let start = Instant::now();
        let stream = loop {
            let source = match connect(&self.host, self.port) {
                Ok(stream) => break stream,
                Err(error) => error,
            };
            if stop.load(Ordering::Relaxed) {
                return Err(Error::Stopped);
            }
            if start.elapsed() >= self.timeout {
                let (at, seconds) = (self.at(), self.timeout.as_secs_f64());
                return Err(Error::Connect { at, seconds, source });
            }
            thread::sleep(PAUSE);
        };
        let failed = |source| Error::Connection { node: 0, source };
        stream.set_read_timeout(Some(PAUSE)).map_err(failed)?;
        (&stream).write_all(MAGIC).and_then(|()| say(&stream, &self.greeting())).map_err(failed)?;
        // Node 0 waits for the others as long as it likes, and then says so.
        let deadline = start + self.timeout * 2 + GREETING;
        match listen_for(&stream, deadline, stop) {
            Ok(Answer::Welcome) => Ok(stream),
            Ok(Answer::Unlike(text)) => Err(Error::Unlike(text)),
            Ok(Answer::Failed(failure)) => Err(failure.into()),
            Err(_) if stop.load(Ordering::Relaxed) => Err(Error::Stopped),
            Err(source) => Err(failed(source)),
        }
    }
}

fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut last = io::Error::new(ErrorKind::NotFound, "the name has no address");
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, GREETING) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// A caller's greeting.
fn heard(stream: &TcpStream) -> io::Result<Greeting> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(GREETING))?;
    stream.set_write_timeout(Some(GREETING))?;
    let never = AtomicBool::new(false);
    let mut magic = [0; MAGIC.len()];
    let deadline = Instant::now() + GREETING;
    fill(stream, &mut magic, deadline, &never)?;
    if &magic != MAGIC {
        return Err(wrong("no node calls"));
    }
    listen_for(stream, deadline, &never)
}

fn say(mut stream: &TcpStream, what: &impl Serialize) -> io::Result<()> {
    let text = serde_json::to_vec(what)?;
    let length = u32::try_from(text.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_le_bytes()[..], &text].concat())
}

fn listen_for<T: for<'a> Deserialize<'a>>(
    stream: &TcpStream,
    deadline: Instant,
    stop: &AtomicBool,
) -> io::Result<T> {
    let mut length = [0; 4];
    fill(stream, &mut length, deadline, stop)?;
    let length = u32::from_le_bytes(length);
    if length > LONGEST {
        return Err(wrong(format!("a text of {length} bytes")));
    }
    let mut text = vec![0; length as usize];
    fill(stream, &mut text, deadline, stop)?;
    Ok(serde_json::from_slice(&text)?)
}

/// Reads until `into` is full.
fn fill(
    mut stream: &TcpStream,
    into: &mut [u8],
    deadline: Instant,
    stop: &AtomicBool,
) -> io::Result<()> {
    let mut done = 0;
    while done < into.len() {
        match stream.read(&mut into[done..]) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => done += count,
            Err(error) => match error.kind() {
                ErrorKind::Interrupted | ErrorKind::WouldBlock | ErrorKind::TimedOut => {}
                _ => return Err(error),
            },
        }
        if stop.load(Ordering::Relaxed) {
            return Err(ErrorKind::Interrupted.into());
        }
        if done < into.len() && Instant::now() >= deadline {
            return Err(ErrorKind::TimedOut.into());
        }
    }
    Ok(())
}

/// Tells callers why nothing begins. Who does not hear it sees the connection end.
fn tell(callers: impl Iterator<Item = TcpStream>, what: &Answer) {
    for caller in callers {
        let _ = say(&caller, what);
    }
}

/// The number and both forms of the first line that differs.
fn first_difference(ours: &str, theirs: &str) -> Option<(usize, String, String)> {
    let (mut ours, mut theirs) = (ours.lines(), theirs.lines());
    let shown = |line: Option<&str>| line.map_or("(its end)", str::trim).to_owned();
    for number in 1.. {
        match (ours.next(), theirs.next()) {
            (None, None) => break,
            (one, other) if one == other => {}
            (one, other) => return Some((number, shown(one), shown(other))),
        }
    }
    None
}

#[cfg(test)]
mod tests;
