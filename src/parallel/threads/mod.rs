//! Groups of the threads of one process.
//!
//! The ranks of a collective put their tensors down; the one that comes last does the work for all,
//! with every core, in the order of the ranks, and wakes those that wait. So a collective copies no
//! more than its results, and no thread spins. The [`Hub`] knows what every rank waits for: when all of them
//! do, none will ever go on, and it says so instead of hanging.
//!
//! Ranks of other nodes bring their tensors and messages through `nodes`.
//!
//! Where a tensor lies on a GPU, NCCL does the work (see `nccl`); the few numbers of the host meet
//! here all the same.

mod hub;
mod in_flight;
mod work;

pub use hub::Hub;
pub use in_flight::GroupKind;

pub(super) use in_flight::Channel;

#[cfg(feature = "cuda")]
use super::group::Route;
use super::group::{Collective, Group, Like, Pending};
#[cfg(feature = "cuda")]
use super::nccl::GpuEnd;
#[cfg(feature = "cuda")]
use candle_core::Device;
use candle_core::{Result, Tensor, bail};
use in_flight::{CollectiveId, Signature};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// One thread's end of a group.
#[derive(Debug)]
pub struct ThreadGroup {
    pub(super) hub: Arc<Hub>,
    pub(super) kind: GroupKind,
    /// Numbers in the run of the group's ranks.
    ranks: Vec<usize>,
    /// This thread's number in the group.
    rank: usize,
    /// Collectives started so far.
    started: AtomicU64,
    #[cfg(feature = "cuda")]
    gpus: GpuEnd,
}

impl ThreadGroup {
    /// This thread's number in the run.
    #[cfg(feature = "cuda")]
    pub(super) fn rank_in_run(&self) -> usize {
        self.ranks[self.rank]
    }

    fn channel(&self, from: usize, to: usize, tag: u64) -> Result<Channel> {
        match (self.ranks.get(from), self.ranks.get(to)) {
            (Some(from), Some(to)) => Ok(Channel { kind: self.kind, from: *from, to: *to, tag }),
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

    fn start(&self, collective: Collective, x: &Tensor) -> Result<Pending> {
        work::check(collective, x, self.size())?;
        #[cfg(feature = "cuda")]
        if x.device().is_cuda() {
            return self.gpus.start(self, collective, x);
        }
        let number = self.started.fetch_add(1, Ordering::Relaxed);
        let key = CollectiveId { kind: self.kind, first: self.ranks[0], number };
        self.hub.join(
            key,
            &self.ranks,
            self.rank,
            &Signature { collective, like: Like::of(x) },
            x,
        )?;
        let (hub, ranks, rank) = (self.hub.clone(), self.ranks.clone(), self.rank);
        Ok(Pending::new(move || hub.result(key, &ranks, rank)))
    }

    #[cfg(feature = "cuda")]
    fn carry_out(&self, collective: Collective, x: &Tensor) -> Result<Tensor> {
        if !x.device().is_cuda() {
            return self.start(collective, x)?.wait();
        }
        work::check(collective, x, self.size())?;
        self.gpus.carry_out(self, collective, x)
    }

    #[cfg(feature = "cuda")]
    fn start_all(&self, collective: Collective, xs: &[Tensor]) -> Result<Vec<Pending>> {
        if xs.iter().any(|x| !x.device().is_cuda()) {
            return xs.iter().map(|x| self.start(collective, x)).collect();
        }
        xs.iter().try_for_each(|x| work::check(collective, x, self.size()))?;
        self.gpus.start_all(self, collective, xs)
    }

    #[cfg(feature = "cuda")]
    fn open(&self, device: &Device) -> Result<()> {
        if device.is_cuda() { self.gpus.open(self, device) } else { Ok(()) }
    }

    #[cfg(feature = "cuda")]
    fn connect(&self, device: &Device, routes: &[Route]) -> Result<()> {
        for Route { from, to, tag } in routes.iter().filter(|_| device.is_cuda()) {
            self.gpus.connect(self, device, self.channel(*from, *to, *tag)?)?;
        }
        Ok(())
    }

    fn send(&self, x: &Tensor, to: usize, tag: u64) -> Result<()> {
        let channel = self.channel(self.rank, to, tag)?;
        #[cfg(feature = "cuda")]
        if x.device().is_cuda() {
            return self.gpus.send(&self.hub, x, channel);
        }
        self.hub.post(channel, x)
    }

    fn receive(&self, like: &Like, from: usize, tag: u64) -> Result<Tensor> {
        let channel = self.channel(from, self.rank, tag)?;
        #[cfg(feature = "cuda")]
        if like.device.is_cuda() {
            return self.gpus.receive(&self.hub, like, channel);
        }
        let x = self.hub.fetch(channel)?;
        if x.shape() != &like.shape || x.dtype() != like.dtype {
            bail!(
                "rank {} sent {:?} {:?}, rank {} expects {:?} {:?}",
                channel.from,
                x.dtype(),
                x.shape(),
                channel.to,
                like.dtype,
                like.shape,
            )
        }
        x.to_device(&like.device)
    }
}
