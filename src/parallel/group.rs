//! What the ranks of a group can do together.

use candle_core::{DType, Device, Result, Shape, Tensor};
use serde::{Deserialize, Serialize};
use std::fmt;

/// One rank's end of a group of ranks.
///
/// Every rank of a group starts the same collectives in the same order; between threads, one whose
/// kind, shape or number format differs between the ranks fails on all of them. When a rank of the
/// process has failed, whatever waits for it fails too, so nothing hangs.
///
/// Sums do not depend on who comes first: threads take them in the order of the ranks, and add
/// halves in f32; NCCL takes them in an order that shapes and the GPUs' links decide. Tensors lie on
/// the rank's device; a group of GPUs also takes tensors on the CPU, for the few numbers that the
/// host needs. On a GPU, results are there for work in the device's stream, which the host may run
/// ahead of.
pub trait Group: fmt::Debug + Send + Sync {
    /// This rank's number in the group, from 0.
    fn rank(&self) -> usize;

    /// Number of ranks.
    fn size(&self) -> usize;

    /// Starts `collective` on the contiguous tensor `x`, beside what the rank computes meanwhile; its
    /// result comes with [`Pending::wait`].
    ///
    /// Until then `x` may not be changed, nor read if the collective works in place.
    fn start(&self, collective: Collective, x: &Tensor) -> Result<Pending>;

    /// The result of `collective` on the contiguous tensor `x`, where nothing is computed meanwhile.
    fn carry_out(&self, collective: Collective, x: &Tensor) -> Result<Tensor> {
        self.start(collective, x)?.wait()
    }

    /// Starts `collective` on each of `xs`, as [`start`](Group::start) does on one; every rank brings as
    /// many, in calls cut alike. On GPUs they begin together, at the cost of one call.
    fn start_all(&self, collective: Collective, xs: &[Tensor]) -> Result<Vec<Pending>> {
        xs.iter().map(|x| self.start(collective, x)).collect()
    }

    /// Makes ready what collectives on `device` need. Every rank of the group calls it before work
    /// that waits for others: in the middle of it, ranks would wait for each other in a circle.
    fn open(&self, _device: &Device) -> Result<()> {
        Ok(())
    }

    /// Makes ready what messages between tensors on `device` need. Every rank of the group calls it
    /// with the same routes in the same order, before the first message on them.
    fn connect(&self, _device: &Device, _routes: &[Route]) -> Result<()> {
        Ok(())
    }

    /// Sends `x` to rank `to`, which receives tensors of equal `tag` in the order of sending.
    /// Does not wait for it, unless many lie unread. `x` may not be changed afterwards.
    fn send(&self, x: &Tensor, to: usize, tag: u64) -> Result<()>;

    /// The next tensor that rank `from` sent with `tag`, which must look like `like`.
    fn receive(&self, like: &Like, from: usize, tag: u64) -> Result<Tensor>;

    /// The sum (or maximum) of every rank's `x`. Ranks may share the result's memory: it is not to
    /// be changed in place.
    fn all_reduce(&self, x: &Tensor, by: Reduction) -> Result<Tensor> {
        self.carry_out(Collective::AllReduce(by), x)
    }

    /// Every rank's `x`, one after the other along dim 0. Not to be changed in place.
    fn all_gather(&self, x: &Tensor) -> Result<Tensor> {
        self.carry_out(Collective::AllGather, x)
    }

    /// This rank's piece along dim 0 of the sum of every rank's `x`; `size` divides dim 0.
    fn reduce_scatter(&self, x: &Tensor) -> Result<Tensor> {
        self.carry_out(Collective::ReduceScatter, x)
    }

    /// `x` of rank `root`, on every rank; all give a tensor of that form. Not to be changed in place.
    fn broadcast(&self, x: &Tensor, root: usize) -> Result<Tensor> {
        self.carry_out(Collective::Broadcast { root }, x)
    }

    /// Waits until every rank is here.
    fn barrier(&self) -> Result<()> {
        self.sum_numbers(&[0.0]).map(|_| ())
    }

    /// The sums over the ranks of a few numbers of the host.
    fn sum_numbers(&self, numbers: &[f64]) -> Result<Vec<f64>> {
        let x = Tensor::new(numbers, &Device::Cpu)?;
        self.all_reduce(&x, Reduction::Sum)?.to_vec1()
    }
}

/// How the numbers of several ranks become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reduction {
    /// Their sum.
    Sum,
    /// The largest.
    Max,
}

/// A collective: an operation that all ranks of a group take part in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Collective {
    /// Gives the sum or maximum.
    AllReduce(Reduction),
    /// Puts the sum or maximum into `x` and gives `x`, which may be a view.
    AllReduceInPlace(Reduction),
    /// Gives the ranks' tensors one after the other along dim 0.
    AllGather,
    /// Fills `x`, of which rank `r` brings the `r`-th of `size` equal pieces along dim 0; gives `x`.
    AllGatherInPlace,
    /// Gives this rank's piece along dim 0 of the sum.
    ReduceScatter,
    /// Puts the sum's `r`-th piece along dim 0 into that piece of `x`; gives `x`, whose other pieces
    /// mean nothing afterwards.
    ReduceScatterInPlace,
    /// Gives the tensor of rank `root`.
    Broadcast {
        /// Whose tensor it is.
        root: usize,
    },
}

impl Collective {
    /// Whether dim 0 of `x` must be a multiple of the group's size.
    pub(super) fn cuts(self) -> bool {
        matches!(
            self,
            Collective::AllGatherInPlace
                | Collective::ReduceScatter
                | Collective::ReduceScatterInPlace
        )
    }
}

/// The way of messages from one rank of a group to another; those of each tag queue by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The sender.
    pub from: usize,
    /// The receiver.
    pub to: usize,
    /// Sent along with each message.
    pub tag: u64,
}

impl Route {
    /// From each of `ranks` ranks to the next, and from the last to the first if `closed`.
    ///
    /// Ranks that connect one route after the other wait for their neighbours: those from even ranks
    /// come first, so that pairs need not wait for each other.
    pub fn chain(ranks: usize, closed: bool, tag: u64) -> Vec<Route> {
        let last = if closed { ranks } else { ranks - 1 };
        let route = |from| Route { from, to: (from + 1) % ranks, tag };
        (0..last).step_by(2).chain((1..last).step_by(2)).map(route).collect()
    }

    /// The way back, under another tag.
    #[must_use]
    pub fn back(self, tag: u64) -> Route {
        Route { from: self.to, to: self.from, tag }
    }
}

/// The form of a tensor to be received.
#[derive(Clone, Debug)]
pub struct Like {
    /// Its shape.
    pub shape: Shape,
    /// Its number format.
    pub dtype: DType,
    /// The receiving rank's device.
    pub device: Device,
}

impl Like {
    /// The form of `x`.
    pub fn of(x: &Tensor) -> Like {
        Like { shape: x.shape().clone(), dtype: x.dtype(), device: x.device().clone() }
    }
}

/// A collective under way.
#[must_use = "a collective has a result only after `wait`"]
pub struct Pending(Box<dyn FnOnce() -> Result<Tensor> + Send>);

impl Pending {
    /// What has come already.
    pub fn ready(result: Tensor) -> Pending {
        Pending::new(move || Ok(result))
    }

    /// A collective whose result `wait` gives.
    pub(super) fn new(wait: impl FnOnce() -> Result<Tensor> + Send + 'static) -> Pending {
        Pending(Box::new(wait))
    }

    /// The result, when every rank has done its part (on a GPU: when the stream has come there).
    pub fn wait(self) -> Result<Tensor> {
        (self.0)()
    }
}

impl fmt::Debug for Pending {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Pending")
    }
}
