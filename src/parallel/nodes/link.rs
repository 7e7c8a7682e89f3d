//! A connection between two nodes: a thread that writes what waits, a thread that reads.
//!
//! Whoever sends does not wait for the network. A node that has nothing to say says that it lives;
//! one of which nothing is heard for a while is lost.

use super::Nodes;
use super::frame::{Frame, Head};
use std::io::{self, BufReader, ErrorKind, Read};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Signs of life in the longest silence that is borne.
const SIGNS: u32 = 5;
/// Longest wait for the other end when the connection is closed.
const FAREWELL: Duration = Duration::from_secs(2);
/// Longest time in which nothing is looked at.
const TICK: Duration = Duration::from_millis(250);

/// This node's end of a connection.
#[derive(Debug)]
pub(super) struct Link {
    /// The node at the other end.
    pub(super) node: usize,
    stream: TcpStream,
    queue: Mutex<Option<Sender<Frame>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Link {
    /// The connection of node `here` to `node`; [`listen`](Link::listen) begins to read.
    pub(super) fn open(
        (here, node): (usize, usize),
        stream: TcpStream,
        silence: Duration,
    ) -> io::Result<Link> {
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(silence))?;
        stream.set_read_timeout(Some(TICK.min(silence)))?;
        let (queue, frames) = channel();
        let mut writer = stream.try_clone()?;
        let alive = Frame::bare((here, node), &Head::Alive);
        let write = move || write(&mut writer, &frames, &alive, silence / SIGNS);
        let thread = thread::Builder::new().name(format!("to node {node}")).spawn(write)?;
        let (queue, threads) = (Mutex::new(Some(queue)), Mutex::new(vec![thread]));
        Ok(Link { node, stream, queue, threads })
    }

    /// Hands `nodes` every frame that comes, and the end of the connection.
    pub(super) fn listen(&self, nodes: Weak<Nodes>, silence: Duration) -> io::Result<()> {
        let (node, stream) = (self.node, self.stream.try_clone()?);
        let read = move || read(node, stream, &nodes, silence);
        let thread = thread::Builder::new().name(format!("from node {node}")).spawn(read)?;
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        Ok(())
    }

    /// Puts a frame into the queue. A connection that is closed or lost takes nothing: who reads
    /// tells of it.
    pub(super) fn send(&self, frame: Frame) {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = &*queue {
            let _ = queue.send(frame);
        }
    }

    /// Sends what waits, tells the other end that nothing more comes, and waits for it to do the
    /// same, so that nothing under way is lost; not for long.
    pub(super) fn close(&self) {
        drop(self.queue.lock().unwrap_or_else(PoisonError::into_inner).take());
        let threads =
            std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        let start = Instant::now();
        while threads.iter().any(|thread| !thread.is_finished()) && start.elapsed() < FAREWELL {
            thread::sleep(Duration::from_millis(2));
        }
        // An error here is of a connection that has ended already.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

/// Writes frames until there are no more; a failure is told by the thread that reads.
fn write(stream: &mut TcpStream, frames: &Receiver<Frame>, alive: &Frame, every: Duration) {
    loop {
        let written = match frames.recv_timeout(every) {
            Ok(frame) => frame.write(stream),
            Err(RecvTimeoutError::Timeout) => alive.write(stream),
            Err(RecvTimeoutError::Disconnected) => break,
        };
        if written.is_err() {
            break;
        }
    }
    // As in `close`.
    let _ = stream.shutdown(Shutdown::Write);
}

fn read(node: usize, stream: TcpStream, nodes: &Weak<Nodes>, silence: Duration) {
    let mut stream = BufReader::with_capacity(1 << 16, Patient { stream, silence, nodes });
    let why = loop {
        match Frame::read(&mut stream) {
            Ok(Some(frame)) => match nodes.upgrade() {
                Some(nodes) => nodes.arrived(node, &frame),
                None => return,
            },
            Ok(None) => break "the connection ended".to_owned(),
            Err(error) => break error.to_string(),
        }
    };
    if let Some(nodes) = nodes.upgrade() {
        nodes.lost(node, &why);
    }
}

/// A stream that waits for bytes, but not in silence for ever.
struct Patient<'a> {
    stream: TcpStream,
    silence: Duration,
    nodes: &'a Weak<Nodes>,
}

impl Read for Patient<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let start = Instant::now();
        loop {
            let error = match self.stream.read(into) {
                Ok(count) => return Ok(count),
                Err(error) => error,
            };
            match error.kind() {
                ErrorKind::Interrupted => {}
                ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                    if self.nodes.strong_count() == 0 {
                        return Ok(0);
                    }
                    if start.elapsed() >= self.silence {
                        let text = format!("nothing was heard for {:?}", self.silence);
                        return Err(io::Error::new(ErrorKind::TimedOut, text));
                    }
                }
                _ => return Err(error),
            }
        }
    }
}
