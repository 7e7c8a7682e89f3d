//! The processes of a run over several nodes: one each, connected through node 0.
//!
//! Every other node is connected to node 0, which passes on what they have for each other: on GPUs
//! that is NCCL's ids and a few numbers of the host, since tensors there go NCCL's own way. What a
//! rank brings to a collective is sent to every node that has a rank in its group, and every node adds up
//! for its own ranks, in the order of the ranks: the bits are those of one process.
//!
//! What fails on one node ends the run on all of them, with the text of what came first.

mod frame;
mod link;
mod place;
pub mod rendezvous;

pub(super) use frame::Input;
pub use place::{NodeFailure, Place, in_words};

use super::threads::{Channel, Hub};
use candle_core::Tensor;
use frame::{EVERYBODY, Form, Frame, Head};
use link::Link;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::io;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

/// Longest silence of a node that is borne, where the timeout is not shorter.
const SILENCE: Duration = Duration::from_secs(30);

/// This process's connections to the other nodes of its run.
pub struct Nodes {
    place: Place,
    timeout: Duration,
    /// Node 0's to all others; theirs to node 0.
    links: Vec<Link>,
    is_closing: AtomicBool,
    /// When the others were last told of work; see [`Nodes::work_goes_on`].
    told: Mutex<Option<Instant>>,
    state: Mutex<State>,
    wake: Condvar,
    delivery: Mutex<Delivery>,
}

#[derive(Default)]
struct State {
    failure: Option<NodeFailure>,
    /// Nodes that have left.
    left: BTreeSet<usize>,
    /// What came, by sender and subject.
    mail: BTreeMap<(usize, String), VecDeque<Vec<u8>>>,
}

/// Where tensors go that come for ranks of this node.
#[derive(Default)]
struct Delivery {
    /// Hubs that this node has begun.
    begun: u64,
    hub: Weak<Hub>,
    /// What came for hubs that this node has not begun yet.
    early: Vec<(u64, Arrival)>,
}

/// A tensor of another node's rank.
enum Arrival {
    Input(Input, Tensor),
    Message(Channel, Tensor),
}

/// Whether the other nodes are told of a failure here.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tell {
    Others,
    Nobody,
}

impl fmt::Debug for Nodes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Nodes({:?})", self.place)
    }
}

impl Nodes {
    /// The nodes behind `streams`, by number; see [`rendezvous`].
    fn open(
        place: Place,
        timeout: Duration,
        streams: Vec<(usize, TcpStream)>,
    ) -> io::Result<Arc<Nodes>> {
        let silence = SILENCE.min(timeout);
        let link = |(node, stream)| Link::open((place.node, node), stream, silence);
        let links = streams.into_iter().map(link).collect::<io::Result<Vec<_>>>()?;
        let nodes = Arc::new(Nodes {
            place,
            timeout,
            links,
            is_closing: AtomicBool::new(false),
            told: Mutex::default(),
            state: Mutex::default(),
            wake: Condvar::new(),
            delivery: Mutex::default(),
        });
        nodes.links.iter().try_for_each(|link| link.listen(Arc::downgrade(&nodes), silence))?;
        Ok(nodes)
    }

    /// Where this process stands.
    pub fn place(&self) -> Place {
        self.place
    }

    /// Whether this is node 0, which decides what is done and writes what is kept.
    pub fn leads(&self) -> bool {
        self.place.node == 0
    }

    /// What has ended the run, if something has.
    pub fn failure(&self) -> Option<NodeFailure> {
        self.lock().failure.clone()
    }

    /// Ends the run on all nodes for a reason of this one; what came first stays the reason.
    pub fn fail(&self, text: impl Into<String>) {
        self.end_for(NodeFailure::of_work(self.place.node, text), Tell::Others);
    }

    /// The same for an accident: see [`NodeFailure::is_accident`].
    pub fn break_off(&self, text: impl Into<String>) {
        self.end_for(NodeFailure::accident(self.place.node, text), Tell::Others);
    }

    /// Leaves `bytes` for `node` under `subject`.
    pub fn post(&self, node: usize, subject: &str, bytes: Vec<u8>) {
        let head = Head::Mail { subject: subject.to_owned() };
        self.send(&Frame::new((self.place.node, node), &head, Arc::new(bytes)));
    }

    /// Leaves `bytes` for every other node under `subject`.
    pub fn post_all(&self, subject: &str, bytes: Vec<u8>) {
        self.post(EVERYBODY, subject, bytes);
    }

    /// The oldest bytes that `node` left under `subject`; waits for them.
    pub fn fetch(&self, node: usize, subject: &str) -> Result<Vec<u8>, NodeFailure> {
        let found = self.fetch_unless(node, subject, &AtomicBool::new(false))?;
        found.ok_or_else(|| NodeFailure::accident(node, "it has left the run"))
    }

    /// [`fetch`](Nodes::fetch), or none when the node has left, or `stop` is set meanwhile.
    pub fn fetch_unless(
        &self,
        node: usize,
        subject: &str,
        stop: &AtomicBool,
    ) -> Result<Option<Vec<u8>>, NodeFailure> {
        const LOOK: Duration = Duration::from_millis(100);
        let key = (node, subject.to_owned());
        let mut state = self.lock();
        loop {
            // What came before a failure may be why: that a node was stopped, say.
            if let Some(bytes) = state.mail.get_mut(&key).and_then(VecDeque::pop_front) {
                return Ok(Some(bytes));
            }
            if let Some(failure) = &state.failure {
                return Err(failure.clone());
            }
            if state.left.contains(&node) || stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let waited = self.wake.wait_timeout(state, LOOK);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Notes that a rank comes on with long work of its own, so that the others wait for it.
    pub fn work_goes_on(&self) {
        const OFTEN: Duration = Duration::from_secs(1);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_some_and(|told| told.elapsed() < OFTEN) {
            return;
        }
        *told = Some(Instant::now());
        self.touch();
        self.send(&Frame::bare((self.place.node, EVERYBODY), &Head::Working));
    }

    fn touch(&self) {
        if let Some(hub) = self.delivery().hub.upgrade() {
            hub.touch();
        }
    }

    /// Waits until every node is here.
    pub(super) fn meet(&self) -> Result<(), NodeFailure> {
        const SUBJECT: &str = "met";
        if !self.leads() {
            self.post(0, SUBJECT, Vec::new());
            return self.fetch(0, SUBJECT).map(|_| ());
        }
        for node in 1..self.place.count {
            self.fetch(node, SUBJECT)?;
        }
        self.post_all(SUBJECT, Vec::new());
        Ok(())
    }

    /// Leaves the run: sends what waits and closes the connections.
    pub fn close(&self) {
        self.send(&Frame::bare((self.place.node, EVERYBODY), &Head::Bye));
        self.is_closing.store(true, Ordering::Relaxed);
        std::thread::scope(|scope| {
            for link in &self.links {
                scope.spawn(|| link.close());
            }
        });
    }

    /// The hub that `make` gives for a number that is the same on all nodes; what came early for it
    /// is delivered.
    pub(super) fn begin(&self, make: impl FnOnce(u64) -> Arc<Hub>) -> Arc<Hub> {
        let mut delivery = self.delivery();
        delivery.begun += 1;
        let number = delivery.begun;
        let hub = make(number);
        delivery.hub = Arc::downgrade(&hub);
        let (now, later) = std::mem::take(&mut delivery.early)
            .into_iter()
            .partition::<Vec<_>, _>(|(wanted, _)| *wanted == number);
        delivery.early = later;
        for (_, arrival) in now {
            arrival.deliver(&hub);
        }
        drop(delivery);
        if let Some(failure) = self.failure() {
            hub.abandon(failure.to_string());
        }
        hub
    }

    /// Sends a rank's tensor for a collective of hub `hub` to the other nodes that have ranks in its group.
    pub(super) fn bring(&self, hub: u64, input: Input, x: &Tensor) -> candle_core::Result<()> {
        let own = self.place.node;
        let nodes: BTreeSet<_> = input.ranks.iter().map(|rank| self.place.node_of(*rank)).collect();
        if nodes.iter().all(|node| *node == own) {
            return Ok(());
        }
        let head = Head::Input { hub, input, form: Form::of(x) };
        let body = Arc::new(frame::bytes(x)?);
        for node in nodes.into_iter().filter(|node| *node != own) {
            self.send(&Frame::new((own, node), &head, body.clone()));
        }
        Ok(())
    }

    /// Sends a tensor from a rank of this node to one of another.
    pub(super) fn carry(&self, hub: u64, channel: Channel, x: &Tensor) -> candle_core::Result<()> {
        let head = Head::Message { hub, channel, form: Form::of(x) };
        let ends = (self.place.node, self.place.node_of(channel.to));
        self.send(&Frame::new(ends, &head, Arc::new(frame::bytes(x)?)));
        Ok(())
    }

    fn send(&self, frame: &Frame) {
        for link in &self.links {
            // Who is not node 0 has one connection, for all.
            if !self.leads() || frame.to == EVERYBODY || frame.to == link.node {
                link.send(frame.clone());
            }
        }
    }

    /// Takes what came from the neighbour `from`, or passes it on.
    fn arrived(&self, from: usize, frame: &Frame) {
        let own = self.place.node;
        let known = frame.from < self.place.count && (!self.leads() || frame.from == from);
        let passed = |link: &&Link| link.node != from && [link.node, EVERYBODY].contains(&frame.to);
        for link in self.links.iter().filter(passed).filter(|_| known && self.leads()) {
            link.send(frame.clone());
        }
        if known && frame.to != own && frame.to != EVERYBODY {
            return;
        }
        let taken: candle_core::Result<()> = match frame.head() {
            Ok(head) if known => self.take(frame.from, head, &frame.body),
            Ok(_) => Err(frame::wrong(format!("it speaks for node {}", frame.from)).into()),
            Err(error) => Err(error.into()),
        };
        if let Err(error) = taken {
            self.break_off(format!("what node {from} sent cannot be used: {error}"));
        }
    }

    fn take(&self, from: usize, head: Head, body: &[u8]) -> candle_core::Result<()> {
        match head {
            Head::Alive => {
                let hub = self.delivery().hub.upgrade();
                if let Some(stalled) = hub.and_then(|hub| hub.stalled(self.timeout)) {
                    self.break_off(stalled);
                }
            }
            Head::Working => self.touch(),
            Head::Bye => {
                self.lock().left.insert(from);
                self.wake.notify_all();
            }
            Head::Failed(failure) => self.end_for(failure, Tell::Nobody),
            Head::Mail { subject } => {
                let mut state = self.lock();
                state.mail.entry((from, subject)).or_default().push_back(body.to_vec());
                self.wake.notify_all();
            }
            Head::Input { hub, input, form } => {
                let is_theirs = input.ranks.get(input.rank).map(|rank| self.place.node_of(*rank));
                let world = self.place.world_size();
                if is_theirs != Some(from) || input.ranks.iter().any(|rank| *rank >= world) {
                    candle_core::bail!("a tensor of another node's rank: {input:?}")
                }
                self.deliver(hub, Arrival::Input(input, form.tensor(body)?));
            }
            Head::Message { hub, channel, form } => {
                if self.place.node_of(channel.from) != from
                    || !self.place.ranks().contains(&channel.to)
                {
                    candle_core::bail!("a message that is astray: {channel:?}")
                }
                self.deliver(hub, Arrival::Message(channel, form.tensor(body)?));
            }
        }
        Ok(())
    }

    /// Hands a tensor to its hub, once this node has begun that one; one of an earlier hub is
    /// nobody's any more.
    fn deliver(&self, number: u64, arrival: Arrival) {
        let mut delivery = self.delivery();
        match number.cmp(&delivery.begun) {
            std::cmp::Ordering::Greater => delivery.early.push((number, arrival)),
            std::cmp::Ordering::Equal => {
                if let Some(hub) = delivery.hub.upgrade() {
                    arrival.deliver(&hub);
                }
            }
            std::cmp::Ordering::Less => {}
        }
    }

    /// Notes that the connection to `node` is gone.
    fn lost(&self, node: usize, why: &str) {
        let has_left = self.lock().left.contains(&node);
        if has_left || self.is_closing.load(Ordering::Relaxed) {
            return;
        }
        let ranks = in_words(&self.place.ranks_of(node));
        let text = format!("it is lost, and with it {ranks} of {}: {why}", self.place.world_size());
        self.end_for(NodeFailure::accident(node, text), Tell::Others);
    }

    /// Ends what this node does, unless something has ended it before.
    fn end_for(&self, failure: NodeFailure, tell: Tell) {
        let mut state = self.lock();
        let first = state.failure.is_none();
        state.failure.get_or_insert_with(|| failure.clone());
        drop(state);
        self.wake.notify_all();
        if !first {
            return;
        }
        let reason = failure.to_string();
        // Before what devices do is ended: that takes a while, and those of others may wait for them.
        if tell == Tell::Others {
            self.send(&Frame::bare((self.place.node, EVERYBODY), &Head::Failed(failure)));
        }
        let hub = self.delivery().hub.upgrade();
        if let Some(hub) = hub {
            hub.abandon(reason);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn delivery(&self) -> MutexGuard<'_, Delivery> {
        self.delivery.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Arrival {
    fn deliver(self, hub: &Hub) {
        match self {
            Arrival::Input(input, x) => hub.brought(&input, &x),
            Arrival::Message(channel, x) => hub.delivered(channel, x),
        }
    }
}
