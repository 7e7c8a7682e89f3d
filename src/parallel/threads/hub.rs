//! Where the threads of a process meet: calls under way, letters, and who waits for what.

use super::{ThreadGroup, work};
use crate::parallel::group::{Call, Like};
#[cfg(feature = "cuda")]
use crate::parallel::nccl::{Communicators, GpuEnd};
use candle_core::{Error, Result, Tensor};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// The kinds of groups; a rank is in one group of each kind at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Line {
    /// All ranks.
    World,
    /// The ranks that split each layer.
    Tensor,
    /// The stages of a pipeline.
    Pipeline,
    /// The replicas of a part of the model.
    Data,
    /// The first and last stage.
    Embedding,
}

/// A call of one group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RoundKey {
    pub(super) line: Line,
    /// The group's first rank.
    pub(super) first: usize,
    /// The group's how manieth call it is.
    pub(super) number: u64,
}

/// A way from one rank to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::parallel) struct Letter {
    pub(super) line: Line,
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) tag: u64,
}

/// What must be alike on all ranks of a call.
#[derive(Clone, Debug)]
pub(super) struct Form {
    pub(super) call: Call,
    pub(super) like: Like,
}

impl Form {
    fn fits(&self, other: &Form) -> bool {
        self.call == other.call
            && self.like.shape == other.like.shape
            && self.like.dtype == other.like.dtype
    }
}

impl fmt::Display for Form {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Form { call, like } = self;
        write!(formatter, "{call:?} of {:?} {:?}", like.dtype, like.shape)
    }
}

/// A call under way.
struct Round {
    form: Form,
    /// The rank that came first.
    begun_by: usize,
    inputs: Vec<Option<Tensor>>,
    /// Each rank's result, once there are results.
    outputs: Option<std::result::Result<Vec<Option<Tensor>>, String>>,
    /// Ranks that have not taken their result.
    left: usize,
}

#[derive(Clone, Copy, Debug)]
enum Waits {
    Round(RoundKey),
    Letter(Letter),
}

struct State {
    /// Why nothing goes on.
    aborted: Option<String>,
    /// Whether a rank has failed.
    failed: bool,
    ended: Vec<bool>,
    waiting: Vec<Option<Waits>>,
    rounds: BTreeMap<RoundKey, Round>,
    letters: BTreeMap<Letter, VecDeque<Tensor>>,
}

/// The meeting place of the ranks of one process.
pub struct Hub {
    state: Mutex<State>,
    /// One per rank, so that only those are woken that can go on.
    wake: Vec<Condvar>,
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
        let state = State {
            aborted: None,
            failed: false,
            ended: vec![false; ranks],
            waiting: vec![None; ranks],
            rounds: BTreeMap::new(),
            letters: BTreeMap::new(),
        };
        let wake = (0..ranks).map(|_| Condvar::new()).collect();
        Arc::new(Hub {
            state: Mutex::new(state),
            wake,
            #[cfg(feature = "cuda")]
            communicators: Communicators::default(),
        })
    }

    /// The end that `rank` has of the group of `ranks`, of which it is one.
    pub fn group(self: &Arc<Hub>, line: Line, ranks: &[usize], rank: usize) -> ThreadGroup {
        let at = ranks.iter().position(|member| *member == rank).unwrap_or_default();
        let (hub, ranks) = (self.clone(), ranks.to_vec());
        ThreadGroup {
            hub,
            line,
            ranks,
            rank: at,
            calls: AtomicU64::new(0),
            #[cfg(feature = "cuda")]
            gpus: GpuEnd::default(),
        }
    }

    /// Notes that `rank` has failed and ends every wait; whether it was the first.
    pub fn fail(&self, rank: usize) -> bool {
        let mut state = self.lock();
        state.ended[rank] = true;
        let first = !std::mem::replace(&mut state.failed, true);
        self.abort(&mut state, format!("rank {rank} failed"));
        drop(state);
        #[cfg(feature = "cuda")]
        self.communicators.give_up();
        first
    }

    /// Ends every wait because of something outside the ranks' threads.
    #[cfg(feature = "cuda")]
    pub(in crate::parallel) fn give_up(&self, reason: String) {
        self.abort(&mut self.lock(), reason);
        self.communicators.give_up();
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

    /// Puts `x` down for a call; whoever comes last carries it out.
    #[expect(clippy::too_many_arguments, reason = "all that a call is")]
    pub(super) fn join(
        &self,
        key: RoundKey,
        ranks: &[usize],
        rank: usize,
        form: &Form,
        x: &Tensor,
    ) -> Result<()> {
        let inputs = {
            let mut state = self.lock();
            state.check()?;
            let round = state.rounds.entry(key).or_insert_with(|| Round {
                form: form.clone(),
                begun_by: ranks[rank],
                inputs: vec![None; ranks.len()],
                outputs: None,
                left: ranks.len(),
            });
            if !round.form.fits(form) {
                let message = format!(
                    "rank {} calls {form} where rank {} calls {} (a bug of this program)",
                    ranks[rank], round.begun_by, round.form,
                );
                return Err(Error::Msg(message));
            }
            round.inputs[rank] = Some(x.clone());
            if round.inputs.iter().any(Option::is_none) {
                return Ok(());
            }
            std::mem::take(&mut round.inputs)
        };
        let inputs: Vec<Tensor> = inputs.into_iter().flatten().collect();
        let outputs = work::carry_out(form.call, &inputs);
        drop(inputs);
        self.finish(key, ranks, outputs);
        Ok(())
    }

    fn finish(&self, key: RoundKey, ranks: &[usize], outputs: Result<Vec<Tensor>>) {
        let outputs = match outputs {
            Ok(outputs) => Ok(outputs.into_iter().map(Some).collect()),
            Err(error) => Err(error.to_string()),
        };
        let mut state = self.lock();
        if let Some(round) = state.rounds.get_mut(&key) {
            round.outputs = Some(outputs);
        }
        for rank in ranks {
            if matches!(state.waiting[*rank], Some(Waits::Round(waited)) if waited == key) {
                state.waiting[*rank] = None;
                self.wake[*rank].notify_one();
            }
        }
    }

    /// This rank's result of a call that it has joined; waits for it.
    pub(super) fn result(&self, key: RoundKey, ranks: &[usize], rank: usize) -> Result<Tensor> {
        let mut state = self.lock();
        loop {
            state.check()?;
            if let Some(result) = state.take_result(key, rank) {
                return result;
            }
            state = self.wait(state, ranks[rank], Waits::Round(key));
        }
    }

    /// Leaves `x` for its receiver.
    pub(in crate::parallel) fn post(&self, letter: Letter, x: &Tensor) -> Result<()> {
        let mut state = self.lock();
        state.check()?;
        state.letters.entry(letter).or_default().push_back(x.clone());
        if matches!(state.waiting[letter.to], Some(Waits::Letter(waited)) if waited == letter) {
            state.waiting[letter.to] = None;
            self.wake[letter.to].notify_one();
        }
        Ok(())
    }

    /// The oldest tensor on a way; waits for it.
    pub(in crate::parallel) fn fetch(&self, letter: Letter) -> Result<Tensor> {
        let mut state = self.lock();
        loop {
            state.check()?;
            if let Some(x) = state.letters.get_mut(&letter).and_then(VecDeque::pop_front) {
                return Ok(x);
            }
            state = self.wait(state, letter.to, Waits::Letter(letter));
        }
    }

    fn wait<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        rank: usize,
        waits: Waits,
    ) -> MutexGuard<'a, State> {
        state.waiting[rank] = Some(waits);
        self.end_if_stuck(&mut state);
        while state.waiting[rank].is_some() && state.aborted.is_none() {
            state = self.wake[rank].wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.waiting[rank] = None;
        state
    }

    /// Aborts when nobody is left who could go on: whoever can go on is not waiting.
    fn end_if_stuck(&self, state: &mut State) {
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

    fn take_result(&mut self, key: RoundKey, rank: usize) -> Option<Result<Tensor>> {
        let round = self.rounds.get_mut(&key)?;
        let result = match round.outputs.as_mut()? {
            Ok(outputs) => Ok(outputs[rank].take()?),
            Err(message) => Err(Error::Msg(message.clone())),
        };
        round.left -= 1;
        if round.left == 0 {
            self.rounds.remove(&key);
        }
        Some(result)
    }

    fn shown(&self, waits: Waits) -> String {
        match waits {
            Waits::Round(key) => {
                let form = self.rounds.get(&key).map(|round| round.form.to_string());
                let form = form.unwrap_or_else(|| "a call".to_owned());
                format!("{form} in its {:?} group", key.line)
            }
            Waits::Letter(letter) => {
                let Letter { line, from, tag, .. } = letter;
                format!("letter {tag} of rank {from} in its {line:?} group")
            }
        }
    }
}
