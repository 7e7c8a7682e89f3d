//! ZeRO-1's all-gather: every replica gets the parameters that the others have changed, while the
//! optimizer is still at the next ones.

use super::gradient_reduction::GradientReduction;
use crate::model::weights::Weights;
use crate::parallel::group::{Collective, Group, Pending};
use candle_core::Result;
use std::ops::Range;

/// Buckets that one call gathers: on GPUs calls for single ones kept the links waiting, by estimate.
const TOGETHER: usize = 8;

/// A bucket of the flat buffers, of which each replica changes a share.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    /// The bucket.
    pub(super) bucket: Range<usize>,
    /// Where this replica's share ends.
    pub(super) end: usize,
}

/// The gather of one step.
#[derive(Debug)]
pub struct ParameterGather<'a> {
    group: &'a dyn Group,
    weights: &'a Weights,
    /// In the order of the buffers.
    buckets: Vec<Shared>,
    /// How many of them are on their way.
    begun: usize,
    pending: Vec<Pending>,
}

impl<'a> ParameterGather<'a> {
    /// A gather of the buckets of `reduction`: of none where every replica changes all parameters.
    pub fn new(reduction: &'a GradientReduction, weights: &'a Weights) -> ParameterGather<'a> {
        let (group, buckets) = reduction.shares();
        ParameterGather { group, weights, buckets, begun: 0, pending: Vec::new() }
    }

    /// To be called when this replica has changed what it changes before `end` in the flat buffers.
    ///
    /// Which buckets go together depends on their numbers only: replicas come to an end at different
    /// places, and must make the same calls.
    pub fn changed_before(&mut self, end: usize) -> Result<()> {
        while let Some(next) = self.next().filter(|next| next.iter().all(|each| each.end <= end)) {
            let values = self.weights.values();
            let view =
                |Shared { bucket, .. }: &Shared| values.narrow(0, bucket.start, bucket.len());
            let views = next.iter().map(view).collect::<Result<Vec<_>>>()?;
            self.begun += next.len();
            self.pending.extend(self.group.start_all(Collective::AllGatherInPlace, &views)?);
        }
        Ok(())
    }

    /// Waits for what is on its way; everything was changed.
    pub fn finish(mut self) -> Result<()> {
        self.changed_before(usize::MAX)?;
        self.pending.into_iter().try_for_each(|pending| pending.wait().map(|_| ()))
    }

    /// The buckets of the next call.
    fn next(&self) -> Option<&[Shared]> {
        self.buckets.get(self.begun..)?.chunks(TOGETHER).next()
    }
}
