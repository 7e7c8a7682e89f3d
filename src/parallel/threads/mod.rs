//! Groups of the threads of one process.
//!
//! The ranks of a call put their tensors down; the one that comes last does the work for all, with
//! every core, in the order of the ranks, and wakes those that wait. So a call copies no more than
//! its results, and no thread spins. The [`Hub`] knows what every rank waits for: when all of them
//! do, none will ever go on, and it says so instead of hanging.
//!
//! Ranks of other nodes bring their tensors and letters through `nodes`.
//!
//! Where a tensor lies on a GPU, NCCL does the work (see `nccl`); the few numbers of the host meet
//! here all the same.

mod hub;
mod round;
mod work;

pub use hub::Hub;
pub use round::Line;

#[cfg(feature = "cuda")]
pub(super) use round::Letter;

use super::group::{Call, Group, Like, Pending};
#[cfg(feature = "cuda")]
use super::nccl::GpuEnd;
use candle_core::{Result, Tensor, bail};
#[cfg(not(feature = "cuda"))]
use round::Letter;
use round::{Form, RoundKey};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// One thread's end of a group.
#[derive(Debug)]
pub struct ThreadGroup {
    pub(super) hub: Arc<Hub>,
    pub(super) line: Line,
    /// Numbers in the run of the group's ranks.
    ranks: Vec<usize>,
    /// This thread's number in the group.
    rank: usize,
    /// Calls begun so far.
    calls: AtomicU64,
    #[cfg(feature = "cuda")]
    gpus: GpuEnd,
}

impl ThreadGroup {
    fn letter(&self, from: usize, to: usize, tag: u64) -> Result<Letter> {
        match (self.ranks.get(from), self.ranks.get(to)) {
            (Some(from), Some(to)) => Ok(Letter { line: self.line, from: *from, to: *to, tag }),
            _ => bail!("rank {} is not in a group of {}", from.max(to), self.size()),
        }
    }
}

impl Group for ThreadGroup {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.ranks.len()
    }

    fn start(&self, call: Call, x: &Tensor) -> Result<Pending> {
        work::check(call, x, self.size())?;
        #[cfg(feature = "cuda")]
        if x.device().is_cuda() {
            return self.gpus.start(self, call, x);
        }
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        let key = RoundKey { line: self.line, first: self.ranks[0], number };
        self.hub.join(key, &self.ranks, self.rank, &Form { call, like: Like::of(x) }, x)?;
        let (hub, ranks, rank) = (self.hub.clone(), self.ranks.clone(), self.rank);
        Ok(Pending::new(move || hub.result(key, &ranks, rank)))
    }

    fn send(&self, x: &Tensor, to: usize, tag: u64) -> Result<()> {
        let letter = self.letter(self.rank, to, tag)?;
        #[cfg(feature = "cuda")]
        if x.device().is_cuda() {
            return self.gpus.send(self, x, letter);
        }
        self.hub.post(letter, x)
    }

    fn receive(&self, like: &Like, from: usize, tag: u64) -> Result<Tensor> {
        let letter = self.letter(from, self.rank, tag)?;
        #[cfg(feature = "cuda")]
        if like.device.is_cuda() {
            return self.gpus.receive(self, like, letter);
        }
        let x = self.hub.fetch(letter)?;
        if x.shape() != &like.shape || x.dtype() != like.dtype {
            bail!(
                "rank {} sent {:?} {:?}, rank {} expects {:?} {:?}",
                letter.from,
                x.dtype(),
                x.shape(),
                letter.to,
                like.dtype,
                like.shape,
            )
        }
        x.to_device(&like.device)
    }
}
