//! Where the threads of a process meet: collectives in flight, messages, and who waits for what.

use super::in_flight::{Channel, CollectiveId, GroupKind, InFlight, Signature};
use super::{ThreadGroup, work};
use crate::parallel::group::Like;
#[cfg(feature = "cuda")]
use crate::parallel::nccl::{Communicators, GpuEnd};
use crate::parallel::nodes::{Input, Nodes};
use candle_core::{Error, Result, Tensor};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::ops::Range;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug)]
enum Waits {
    Collective(CollectiveId),
    Message(Channel),
}

struct State {
    /// Why nothing goes on.
    aborted: Option<String>,
    /// Whether a rank has failed.
    failed: bool,
    ended: Vec<bool>,
    waiting: Vec<Option<Waits>>,
    in_flight: BTreeMap<CollectiveId, InFlight>,
    messages: BTreeMap<Channel, VecDeque<Tensor>>,
    /// When a rank last came here, or something for one.
    moved: Instant,
}

/// The meeting place of the ranks of one process, and its door to those of the other nodes.
pub struct Hub {
    state: Mutex<State>,
    /// One per rank of the run, so that only those are woken that can go on.
    wake: Vec<Condvar>,
    /// Numbers of the ranks that are threads of this process.
    here: Range<usize>,
    /// Where the others are, and this hub's number among those of the nodes.
    others: Option<(Arc<Nodes>, u64)>,
    /// Those of all ranks, so that a failure ends what waits on the devices too.
    #[cfg(feature = "cuda")]
    pub(in crate::parallel) communicators: Communicators,
}

impl fmt::Debug for Hub {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Hub({} ranks)", self.wake.len())
    }
}

impl Hub {
    /// A hub for `ranks` threads.
    pub fn new(ranks: usize) -> Arc<Hub> {
        Hub::of(ranks, 0..ranks, None)
    }

    /// A hub for this process's ranks of a run over several nodes.
    pub fn of_node(nodes: &Arc<Nodes>) -> Arc<Hub> {
        let place = nodes.place();
        let others = |number| Some((nodes.clone(), number));
        nodes.begin(|number| Hub::of(place.world_size(), place.ranks(), others(number)))
    }

    fn of(ranks: usize, here: Range<usize>, others: Option<(Arc<Nodes>, u64)>) -> Arc<Hub> {
        let state = State {
            aborted: None,
            failed: false,
            ended: vec![false; ranks],
            waiting: vec![None; ranks],
            in_flight: BTreeMap::new(),
            messages: BTreeMap::new(),
            moved: Instant::now(),
        };
        let wake = (0..ranks).map(|_| Condvar::new()).collect();
        Arc::new(Hub {
            state: Mutex::new(state),
            wake,
            here,
            others,
            #[cfg(feature = "cuda")]
            communicators: Communicators::default(),
        })
    }

    /// The end that `rank` has of the group of `ranks`, of which it is one.
    pub fn group(self: &Arc<Hub>, kind: GroupKind, ranks: &[usize], rank: usize) -> ThreadGroup {
        let at = ranks.iter().position(|member| *member == rank).unwrap_or_default();
        let (hub, ranks) = (self.clone(), ranks.to_vec());
        ThreadGroup {
            hub,
            kind,
            ranks,
            rank: at,
            started: AtomicU64::new(0),
            #[cfg(feature = "cuda")]
            gpus: GpuEnd::default(),
        }
    }

    /// Notes that `rank` has failed and ends every wait of the host; whether it was the first. What
    /// devices wait for ends with [`give_up`](Hub::give_up), which takes a while.
    pub fn fail(&self, rank: usize) -> bool {
        let mut state = self.lock();
        state.ended[rank] = true;
        let first = !std::mem::replace(&mut state.failed, true);
        self.abort(&mut state, format!("rank {rank} failed"));
        first
    }

    /// Ends every wait because another node has failed: what fails here now fails for that.
    pub(in crate::parallel) fn abandon(&self, reason: String) {
        let mut state = self.lock();
        state.failed = true;
        self.abort(&mut state, reason);
        drop(state);
        #[cfg(feature = "cuda")]
        self.communicators.give_up();
    }

    /// Waits until all that was begun on this process's devices is done.
    #[cfg(feature = "cuda")]
    pub(in crate::parallel) fn settle(&self) {
        self.communicators.settle();
    }

    /// Ends what this process's devices do for groups, and waits until it has come to its end.
    #[cfg(feature = "cuda")]
    pub(in crate::parallel) fn give_up(&self) {
        self.communicators.give_up();
    }

    /// The other nodes of the run.
    pub(in crate::parallel) fn nodes(&self) -> Option<&Arc<Nodes>> {
        self.others.as_ref().map(|(nodes, _)| nodes)
    }

    /// The number of rank `rank` among those of this process.
    pub(in crate::parallel) fn local(&self, rank: usize) -> usize {
        rank - self.here.start
    }

    /// Notes that work goes on of which nothing is seen here.
    pub(in crate::parallel) fn touch(&self) {
        self.lock().moved = Instant::now();
    }

    /// What this process's ranks do, if none of them came here for so long.
    pub(in crate::parallel) fn stalled(&self, limit: Duration) -> Option<String> {
        let state = self.lock();
        let live: Vec<_> = self.here.clone().filter(|rank| !state.ended[*rank]).collect();
        if state.aborted.is_some() || live.is_empty() || state.moved.elapsed() < limit {
            return None;
        }
        let does = |rank: &usize| match state.waiting[*rank] {
            Some(waits) => format!("rank {rank} waits for {}", state.shown(waits)),
            None => format!("rank {rank} computes or waits for its device"),
        };
        let does: Vec<_> = live.iter().map(does).collect();
        Some(format!("nothing has come on for {} s: {}", limit.as_secs_f64(), does.join("; ")))
    }

    /// An error once nothing goes on any more, which says why.
    #[cfg(feature = "cuda")]
    pub(in crate::parallel) fn goes_on(&self) -> Result<()> {
        self.lock().check()
    }

    /// Notes that `rank` takes part in nothing any more.
    pub fn end(&self, rank: usize) {
        let mut state = self.lock();
        state.ended[rank] = true;
        self.end_if_stuck(&mut state);
    }

    /// Puts `x` down for a collective; whoever comes last carries it out.
    #[expect(clippy::too_many_arguments, reason = "all that a collective is")]
    pub(super) fn join(
        &self,
        key: CollectiveId,
        ranks: &[usize],
        rank: usize,
        signature: &Signature,
        x: &Tensor,
    ) -> Result<()> {
        if let Some((nodes, number)) = &self.others {
            let CollectiveId { kind, number: started, .. } = key;
            let (ranks, collective) = (ranks.to_vec(), signature.collective);
            let input = Input { kind, ranks, rank, number: started, collective };
            // Before anybody can carry the collective out, which may change `x`.
            nodes.bring(*number, input, x)?;
        }
        self.put(key, ranks, rank, signature, x)
    }

    /// Takes what a rank of another node brings to a collective.
    pub(in crate::parallel) fn brought(&self, input: &Input, x: &Tensor) {
        let Input { kind, ref ranks, rank, number, collective } = *input;
        let Some(first) = ranks.first().copied() else { return };
        let key = CollectiveId { kind, first, number };
        let signature = Signature { collective, like: Like::of(x) };
        if let Err(error) = self.put(key, ranks, rank, &signature, x) {
            self.abort(&mut self.lock(), error.to_string());
        }
    }

    #[expect(clippy::too_many_arguments, reason = "all that a collective is")]
    fn put(
        &self,
        key: CollectiveId,
        ranks: &[usize],
        rank: usize,
        signature: &Signature,
        x: &Tensor,
    ) -> Result<()> {
        let inputs = {
            let mut state = self.lock();
            state.check()?;
            state.moved = Instant::now();
            let left = || ranks.iter().filter(|rank| self.here.contains(rank)).count();
            let entry = state.in_flight.entry(key);
            let entry = entry.or_insert_with(|| InFlight::new(signature, ranks, rank, left()));
            match entry.take(signature, rank, x)? {
                Some(inputs) => inputs,
                None => return Ok(()),
            }
        };
        let outputs = work::carry_out(signature.collective, &inputs);
        drop(inputs);
        self.finish(key, ranks, outputs);
        Ok(())
    }

    fn finish(&self, key: CollectiveId, ranks: &[usize], outputs: Result<Vec<Tensor>>) {
        let outputs = match outputs {
            Ok(outputs) => Ok(outputs.into_iter().map(Some).collect()),
            Err(error) => Err(error.to_string()),
        };
        let mut state = self.lock();
        if let Some(entry) = state.in_flight.get_mut(&key) {
            entry.outputs = Some(outputs);
        }
        for rank in ranks {
            if matches!(state.waiting[*rank], Some(Waits::Collective(waited)) if waited == key) {
                state.waiting[*rank] = None;
                self.wake[*rank].notify_one();
            }
        }
    }

    /// This rank's result of a collective that it has joined; waits for it.
    pub(super) fn result(&self, key: CollectiveId, ranks: &[usize], rank: usize) -> Result<Tensor> {
        let mut state = self.lock();
        loop {
            state.check()?;
            if let Some(result) = state.take_result(key, rank) {
                return result;
            }
            state = self.wait(state, ranks[rank], Waits::Collective(key));
        }
    }

    /// Leaves `x` for its receiver.
    pub(in crate::parallel) fn post(&self, channel: Channel, x: &Tensor) -> Result<()> {
        if let Some((nodes, number)) = &self.others
            && !self.here.contains(&channel.to)
        {
            self.lock().check()?;
            return nodes.carry(*number, channel, x);
        }
        let mut state = self.lock();
        state.check()?;
        self.put_down(&mut state, channel, x.clone());
        Ok(())
    }

    /// Takes a message of another node's rank.
    pub(in crate::parallel) fn delivered(&self, channel: Channel, x: Tensor) {
        self.put_down(&mut self.lock(), channel, x);
    }

    fn put_down(&self, state: &mut State, channel: Channel, x: Tensor) {
        state.moved = Instant::now();
        state.messages.entry(channel).or_default().push_back(x);
        if matches!(state.waiting[channel.to], Some(Waits::Message(waited)) if waited == channel) {
            state.waiting[channel.to] = None;
            self.wake[channel.to].notify_one();
        }
    }

    /// The oldest unread tensor of a channel; waits for it.
    pub(in crate::parallel) fn fetch(&self, channel: Channel) -> Result<Tensor> {
        let mut state = self.lock();
        loop {
            state.check()?;
            if let Some(x) = state.messages.get_mut(&channel).and_then(VecDeque::pop_front) {
                return Ok(x);
            }
            state = self.wait(state, channel.to, Waits::Message(channel));
        }
    }

    fn wait<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        rank: usize,
        waits: Waits,
    ) -> MutexGuard<'a, State> {
        state.waiting[rank] = Some(waits);
        state.moved = Instant::now();
        self.end_if_stuck(&mut state);
        while state.waiting[rank].is_some() && state.aborted.is_none() {
            state = self.wake[rank].wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.waiting[rank] = None;
        state
    }

    /// Aborts when nobody is left who could go on: whoever can go on is not waiting. Of other nodes
    /// that is not known; see [`stalled`](Hub::stalled).
    fn end_if_stuck(&self, state: &mut State) {
        if self.others.is_some() {
            return;
        }
        let ranks = 0..self.wake.len();
        let live: Vec<usize> = ranks.filter(|rank| !state.ended[*rank]).collect();
        if live.is_empty() || live.iter().any(|rank| state.waiting[*rank].is_none()) {
            return;
        }
        let waits = live.iter().filter_map(|rank| Some((rank, state.waiting[*rank]?)));
        let waits: Vec<_> =
            waits.map(|(rank, waits)| format!("rank {rank} for {}", state.shown(waits))).collect();
        let message =
            format!("every rank waits for another (a bug of this program): {}", waits.join("; "));
        self.abort(state, message);
    }

    fn abort(&self, state: &mut State, reason: String) {
        state.aborted.get_or_insert(reason);
        for wake in &self.wake {
            wake.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn check(&self) -> Result<()> {
        match &self.aborted {
            Some(reason) => Err(Error::Msg(format!("given up: {reason}"))),
            None => Ok(()),
        }
    }

    fn take_result(&mut self, key: CollectiveId, rank: usize) -> Option<Result<Tensor>> {
        let entry = self.in_flight.get_mut(&key)?;
        let result = match entry.outputs.as_mut()? {
            Ok(outputs) => Ok(outputs[rank].take()?),
            Err(message) => Err(Error::Msg(message.clone())),
        };
        entry.left -= 1;
        if entry.left == 0 {
            self.in_flight.remove(&key);
        }
        Some(result)
    }

    fn shown(&self, waits: Waits) -> String {
        match waits {
            Waits::Collective(key) => {
                let Some(entry) = self.in_flight.get(&key) else {
                    return "a collective".to_owned();
                };
                let awaited: Vec<_> = entry.awaited().map(|rank| rank.to_string()).collect();
                let (signature, kind, awaited) = (&entry.signature, key.kind, awaited.join(", "));
                format!("{signature} in its {kind:?} group, to which rank {awaited} did not come")
            }
            Waits::Message(channel) => {
                let Channel { kind, from, tag, .. } = channel;
                format!("message {tag} of rank {from} in its {kind:?} group")
            }
        }
    }
}
