//! What the ranks of a process do together: a call under way, a way for letters.

use crate::parallel::group::{Call, Like};
use candle_core::{Result, Tensor, bail};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The kinds of groups; a rank is in one group of each kind at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
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
    pub(super) fn fits(&self, other: &Form) -> bool {
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
pub(super) struct Round {
    pub(super) form: Form,
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

impl Round {
    /// A call that rank `rank` of the group of `ranks` begins; `left` of them are in this process.
    pub(super) fn new(form: &Form, ranks: &[usize], rank: usize, left: usize) -> Round {
        Round {
            form: form.clone(),
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
        form: &Form,
        rank: usize,
        x: &Tensor,
    ) -> Result<Option<Vec<Tensor>>> {
        let Some(number) = self.ranks.get(rank).copied() else {
            bail!("a group of {:?} has no rank {rank} (a bug of this program)", self.ranks)
        };
        if !self.form.fits(form) {
            let Round { begun_by, form: begun, .. } = self;
            bail!(
                "rank {number} calls {form} where rank {begun_by} calls {begun} (a bug of this \
                 program)"
            )
        }
        if self.inputs.get(rank).is_none_or(Option::is_some) {
            bail!("rank {number} brings two tensors to one call (a bug of this program)")
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
