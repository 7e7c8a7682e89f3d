//! What the ranks of a process do together: a collective in flight, a channel for messages.

use crate::parallel::group::{Collective, Like};
use candle_core::{Result, Tensor, bail};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The kinds of groups; a rank is in one group of each kind at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum GroupKind {
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

/// Which collective of which group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct CollectiveId {
    pub(super) kind: GroupKind,
    /// The group's first rank.
    pub(super) first: usize,
    /// Collectives that the group had started before.
    pub(super) number: u64,
}

/// Messages from one rank to another with one tag; they arrive in the order of sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(in crate::parallel) struct Channel {
    pub(in crate::parallel) kind: GroupKind,
    pub(in crate::parallel) from: usize,
    pub(in crate::parallel) to: usize,
    pub(in crate::parallel) tag: u64,
}

/// What must be alike on all ranks of a collective.
#[derive(Clone, Debug)]
pub(super) struct Signature {
    pub(super) collective: Collective,
    pub(super) like: Like,
}

impl Signature {
    pub(super) fn fits(&self, other: &Signature) -> bool {
        self.collective == other.collective
            && self.like.shape == other.like.shape
            && self.like.dtype == other.like.dtype
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Signature { collective, like } = self;
        write!(formatter, "{collective:?} of {:?} {:?}", like.dtype, like.shape)
    }
}

/// A collective that not all ranks have joined, or whose results are not all taken.
pub(super) struct InFlight {
    pub(super) signature: Signature,
    /// Numbers in the run of the group's ranks.
    ranks: Vec<usize>,
    /// The rank that came first.
    begun_by: usize,
    inputs: Vec<Option<Tensor>>,
    /// Each rank's result, once there are results.
    pub(super) outputs: Option<std::result::Result<Vec<Option<Tensor>>, String>>,
    /// Ranks of this process that have not taken their result.
    pub(super) left: usize,
}

impl InFlight {
    /// A call that rank `rank` of the group of `ranks` begins; `left` of them are in this process.
    pub(super) fn new(
        signature: &Signature,
        ranks: &[usize],
        rank: usize,
        left: usize,
    ) -> InFlight {
        InFlight {
            signature: signature.clone(),
            ranks: ranks.to_vec(),
            begun_by: ranks[rank],
            inputs: vec![None; ranks.len()],
            outputs: None,
            left,
        }
    }

    /// Takes what rank `rank` of the group brings; gives all inputs when it was the last.
    pub(super) fn take(
        &mut self,
        signature: &Signature,
        rank: usize,
        x: &Tensor,
    ) -> Result<Option<Vec<Tensor>>> {
        let Some(number) = self.ranks.get(rank).copied() else {
            bail!("a group of {:?} has no rank {rank} (a bug of this program)", self.ranks)
        };
        if !self.signature.fits(signature) {
            let InFlight { begun_by, signature: begun, .. } = self;
            bail!(
                "rank {number} calls {signature} where rank {begun_by} calls {begun} (a bug of this \
                 program)"
            )
        }
        if self.inputs.get(rank).is_none_or(Option::is_some) {
            bail!("rank {number} brings two tensors to one collective (a bug of this program)")
        }
        self.inputs[rank] = Some(x.clone());
        if self.inputs.iter().any(Option::is_none) {
            return Ok(None);
        }
        Ok(Some(std::mem::take(&mut self.inputs).into_iter().flatten().collect()))
    }

    /// Ranks that have not come.
    pub(super) fn awaited(&self) -> impl Iterator<Item = usize> {
        let missing = self.ranks.iter().zip(&self.inputs).filter(|(_, input)| input.is_none());
        missing.map(|(rank, _)| *rank)
    }
}
