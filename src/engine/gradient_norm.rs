//! The norm of the whole model's gradient, of which every rank has a part.
//!
//! Each parameter counts once: of the ranks of a replica that hold the same elements, one counts them
//! ([`Part::counts`](crate::layout::holding::Part::counts)); of the replicas, each counts the elements
//! whose sum it has.

use crate::kernels::reduce;
use crate::layout::holding::intersection;
use crate::model::weights::Weights;
use crate::parallel::mesh::Mesh;
use candle_core::Result;
use std::ops::Range;

/// This rank's share of the sum of squares over the model's gradient; `owned` are the elements of the
/// buffers whose sums over the replicas it has, once `ready` was told that they are read. The shares of
/// all ranks add up to the squared norm.
pub fn sum_of_squares(
    mesh: &Mesh,
    weights: &Weights,
    owned: &[Range<usize>],
    ready: impl FnMut(&Range<usize>) -> Result<()>,
) -> Result<f64> {
    if !counts_replica(mesh, weights, owned) {
        return Ok(0.0);
    }
    let mut runs: Vec<Range<usize>> = Vec::new();
    for part in weights.holding().parts().iter().filter(|part| part.counts) {
        match runs.last_mut() {
            Some(last) if last.end == part.range.start => last.end = part.range.end,
            _ => runs.push(part.range.clone()),
        }
    }
    let both = runs.iter().flat_map(|run| owned.iter().map(|owned| intersection(run, owned)));
    reduce::sum_of_squares_in(weights.gradients(), both, ready)
}

/// Without a distributed optimizer every replica has all sums: the first one counts them.
fn counts_replica(mesh: &Mesh, weights: &Weights, owned: &[Range<usize>]) -> bool {
    let all = owned.iter().map(Range::len).sum::<usize>() == weights.holding().length();
    !all || mesh.at.data == 0
}
