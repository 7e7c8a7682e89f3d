//! Gradients of ranks that hold the same parameters, added up while the backward pass still runs:
//! data parallelism.
//!
//! The gradient buffer is cut into buckets of equal length. Once the last micro-batch has added all
//! gradients of a bucket, the replicas begin to add theirs up; layers finish in reverse order, so
//! buckets fill from the end. A sum takes some of a GPU's multiprocessors. Attention's kernels get by
//! with the others, but a matrix product has its work cut for all of them and waits: sums that could
//! begin are kept until attention comes. With a distributed optimizer (ZeRO-1: Rajbhandari et al.
//! 2020, "`ZeRO`", section 5.1) each replica gets its share of every bucket's sum, changes these
//! parameters, and gathers the others' (`parameter_gather.rs`).
//!
//! Two more sums come before: over the tensor ranks for parameters of the residual stream where
//! each rank has rows of it only, and over the first and last stage for a tied word embedding.
//! Gradients of frozen parameters are cleared here: not every layer leaves them out.

use super::parameter_gather::Shared;
use crate::kernels::reduce;
use crate::layout::parameters::{Place, WORD_EMBEDDINGS};
use crate::model::trunk::Milestone;
use crate::model::weights::Weights;
use crate::parallel::group::{Collective, Group, Pending, Reduction};
use crate::parallel::mesh::Mesh;
use candle_core::{Result, Tensor};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// Elements of a bucket: 16 MiB of gradients, or 64 MiB on GPUs, where beginning a sum costs more.
const BUCKET: usize = 4 << 20;
const GPU_BUCKET: usize = 16 << 20;

/// How one rank's gradients are added to those of others.
#[derive(Debug)]
pub struct GradientReduction {
    mesh: Mesh,
    /// Whether each replica keeps its share of the sums only.
    distributed: bool,
    buckets: Vec<Bucket>,
    parts: Vec<Part>,
    /// The buckets that each call of the replicas adds up, in the order of the calls: that in which
    /// backward passes fill them. It is fixed, since a replica that learns nothing in a step fills none,
    /// and must make the same calls.
    calls: Vec<Vec<usize>>,
    /// Calls that this step has made.
    made: usize,
}

#[derive(Debug)]
struct Bucket {
    range: Range<usize>,
    pending: Option<Pending>,
}

/// A parameter's gradient.
#[derive(Debug)]
struct Part {
    place: Place,
    range: Range<usize>,
    /// Whether tensor ranks have summed over their own rows only.
    over_rows: bool,
    /// The group that holds it too, for a word embedding on the first and last stage.
    tied: Option<Arc<dyn Group>>,
    learns: bool,
    complete: bool,
}

impl GradientReduction {
    /// The sums of a rank's gradients; `distributed` as the optimizer is.
    pub fn new(mesh: &Mesh, weights: &Weights, distributed: bool) -> GradientReduction {
        let bucket = if weights.device().is_cpu() { BUCKET } else { GPU_BUCKET };
        GradientReduction::with_buckets(mesh, weights, distributed, bucket)
    }

    /// The same with about `elements` in each bucket.
    pub fn with_buckets(
        mesh: &Mesh,
        weights: &Weights,
        distributed: bool,
        elements: usize,
    ) -> GradientReduction {
        let (length, replicas) = (weights.holding().length(), mesh.degrees.data);
        let size = elements.max(1).next_multiple_of(replicas);
        let bucket = |start| Bucket { range: start..length.min(start + size), pending: None };
        // A tied model has no other output layer.
        let ends = mesh.embedding.as_ref().filter(|_| weights.holding().is_tied());
        let part = |part: &crate::layout::holding::Part| Part {
            place: part.parameter.place,
            range: part.range.clone(),
            over_rows: mesh.degrees.sequence && part.is_summed_over_rows(),
            tied: ends.filter(|_| part.parameter.name == WORD_EMBEDDINGS).cloned(),
            learns: part.learns,
            complete: false,
        };
        let buckets: Vec<_> = (0..length).step_by(size).map(bucket).collect();
        let parts: Vec<_> = weights.holding().parts().iter().map(part).collect();
        let calls = calls(&buckets, &parts);
        GradientReduction { mesh: mesh.clone(), distributed, buckets, parts, calls, made: 0 }
    }

    /// The elements of the buffers whose sums this rank has in the end, and whose parameters it
    /// changes.
    pub fn owned(&self) -> Vec<Range<usize>> {
        if !self.distributed {
            let end = self.buckets.last().map_or(0, |bucket| bucket.range.end);
            return std::iter::once(0..end).collect();
        }
        let mut owned: Vec<Range<usize>> = Vec::new();
        for share in self.buckets.iter().map(|bucket| self.share(&bucket.range)) {
            match owned.last_mut() {
                Some(last) if last.end == share.start => last.end = share.end,
                _ => owned.push(share),
            }
        }
        owned
    }

    /// Forgets the step before.
    pub fn begin(&mut self) {
        self.made = 0;
        for bucket in &mut self.buckets {
            bucket.pending = None;
        }
        for part in &mut self.parts {
            part.complete = false;
        }
    }

    /// To be called in the last micro-batch with what its backward reaches.
    pub fn reached(&mut self, milestone: Milestone, weights: &Weights) -> Result<()> {
        match milestone {
            // The other stage may still be computing: a tied embedding waits for the end.
            Milestone::Finished(place) => {
                self.complete(|part| part.place == place && part.tied.is_none(), weights)
            }
            Milestone::Attention => self.start_full_buckets(weights),
        }
    }

    /// Begins all sums that have not begun; [`land`](GradientReduction::land) waits for them.
    pub fn begin_rest(&mut self, weights: &Weights) -> Result<()> {
        // Before a tied embedding's, which waits for the other stage.
        self.start_full_buckets(weights)?;
        for part in &self.parts {
            if let Some(ends) = &part.tied {
                let gradient = view(weights.gradients(), &part.range)?;
                ends.carry_out(Collective::AllReduceInPlace(Reduction::Sum), &gradient)?;
            }
        }
        let mut places: Vec<Place> = self.parts.iter().map(|part| part.place).collect();
        places.dedup();
        for place in places.into_iter().rev() {
            self.complete(|part| part.place == place, weights)?;
        }
        self.start_full_buckets(weights)
    }

    /// Waits for the sums of which `range` of the buffers has elements.
    pub fn land(&mut self, range: &Range<usize>) -> Result<()> {
        for bucket in &mut self.buckets {
            let meets = bucket.range.start < range.end && range.start < bucket.range.end;
            if let Some(pending) = bucket.pending.take_if(|_| meets) {
                pending.wait()?;
            }
        }
        Ok(())
    }

    /// The replicas, and the buckets that they share; none where each changes all parameters.
    pub(super) fn shares(&self) -> (&dyn Group, Vec<Shared>) {
        let is_shared = self.distributed && self.mesh.degrees.data > 1;
        let shared = |bucket: &Bucket| Shared {
            bucket: bucket.range.clone(),
            end: self.share(&bucket.range).end,
        };
        let buckets = self.buckets.iter().filter(|_| is_shared).map(shared);
        (&*self.mesh.data, buckets.collect())
    }

    /// What of a bucket is this replica's, with a distributed optimizer.
    fn share(&self, bucket: &Range<usize>) -> Range<usize> {
        let length = bucket.len() / self.mesh.degrees.data;
        let start = bucket.start + self.mesh.at.data * length;
        start..start + length
    }

    /// Notes what has its gradients, after the sums over the tensor ranks.
    fn complete(&mut self, is_ready: impl Fn(&Part) -> bool, weights: &Weights) -> Result<()> {
        let mut over_rows = Vec::new();
        for part in self.parts.iter_mut().filter(|part| !part.complete && is_ready(part)) {
            part.complete = true;
            let gradient = view(weights.gradients(), &part.range)?;
            if !part.learns {
                reduce::clear(&gradient)?;
            } else if part.over_rows {
                over_rows.push(gradient);
            }
        }
        if !over_rows.is_empty() {
            sum_together(&*self.mesh.tensor, &over_rows)?;
        }
        Ok(())
    }

    /// Makes the replicas' calls for which all gradients are there.
    fn start_full_buckets(&mut self, weights: &Weights) -> Result<()> {
        if self.mesh.degrees.data == 1 {
            return Ok(());
        }
        let kind = if self.distributed {
            Collective::ReduceScatterInPlace
        } else {
            Collective::AllReduceInPlace(Reduction::Sum)
        };
        while let Some(call) = self.calls.get(self.made).filter(|call| self.is_full(call)) {
            let gradients = |at: &usize| view(weights.gradients(), &self.buckets[*at].range);
            let gradients = call.iter().map(gradients).collect::<Result<Vec<_>>>()?;
            let pending = self.mesh.data.start_all(kind, &gradients)?;
            for (at, pending) in call.iter().zip(pending) {
                self.buckets[*at].pending = Some(pending);
            }
            self.made += 1;
        }
        Ok(())
    }

    /// Whether all gradients of these buckets are there.
    fn is_full(&self, call: &[usize]) -> bool {
        let misses = |at: &usize| {
            self.parts.iter().any(|part| !part.complete && part.meets(&self.buckets[*at]))
        };
        !call.iter().any(misses)
    }
}

impl Part {
    fn meets(&self, bucket: &Bucket) -> bool {
        self.range.start < bucket.range.end && bucket.range.start < self.range.end
    }
}

/// The buckets that backward passes fill at once, from the last part of the model to the first; tied
/// embeddings, which wait for the other stage, come at the end.
fn calls(buckets: &[Bucket], parts: &[Part]) -> Vec<Vec<usize>> {
    let mut calls = BTreeMap::<_, Vec<usize>>::new();
    for (at, bucket) in buckets.iter().enumerate().rev() {
        let meeting = parts.iter().filter(|part| part.meets(bucket));
        let filled_by = meeting.map(|part| (part.tied.is_some(), Reverse(part.place))).max();
        calls.entry(filled_by).or_default().push(at);
    }
    calls.into_values().collect()
}

/// Adds up several small tensors over `group`, in place, in one call.
fn sum_together(group: &dyn Group, tensors: &[Tensor]) -> Result<()> {
    let sums = group.all_reduce(&Tensor::cat(tensors, 0)?, Reduction::Sum)?;
    let mut start = 0;
    for tensor in tensors {
        let length = tensor.elem_count();
        tensor.slice_set(&sums.narrow(0, start, length)?, 0, 0)?;
        start += length;
    }
    Ok(())
}

fn view(buffer: &Tensor, range: &Range<usize>) -> Result<Tensor> {
    buffer.narrow(0, range.start, range.len())
}
