//! Sums over all parameters of the model, wherever they lie: the gradient's norm, and which
//! parameters got no gradient.
//!
//! What several ranks of a replica hold alike counts once ([`Part::counts`]); of replicas, each
//! counts what it has the sums of.

use crate::kernels::reduce;
use crate::layout::holding::Part;
use crate::layout::parameters::is_vocabulary;
use crate::model::weights::Weights;
use crate::parallel::mesh::Mesh;
use candle_core::Result;
use std::ops::Range;

/// This rank's share of the sum of squares of the model's gradient, of which it has the sums of
/// elements `owned`.
pub fn squares(mesh: &Mesh, weights: &Weights, owned: &[Range<usize>]) -> Result<f64> {
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
    reduce::sum_of_squares_in(weights.gradients(), both)
}

/// Names of the parameters that this rank holds, that learn, and whose gradient is zeros: a lost
/// gradient is silent otherwise.
///
/// A rank's rows of the vocabulary may be without a gradient for good, when no id of theirs is in the
/// batch: of the vocabulary only the whole is looked at.
pub fn without_gradient(
    mesh: &Mesh,
    weights: &Weights,
    owned: &[Range<usize>],
) -> Result<Vec<String>> {
    let parts = weights.holding().parts();
    let here = |part: &Part| -> Result<f64> {
        let both = owned.iter().map(|owned| intersection(&part.range, owned));
        reduce::sum_of_squares_in(weights.gradients(), both)
    };
    let here = parts.iter().map(here).collect::<Result<Vec<f64>>>()?;
    let replica = mesh.data.sum_numbers(&here)?;
    let whole = mesh.tensor.sum_numbers(&replica)?;
    let is_missing = |(at, part): &(usize, &Part)| {
        if !part.learns {
            return false;
        }
        let split_vocabulary = is_vocabulary(&part.parameter.name);
        (if split_vocabulary { whole[*at] } else { replica[*at] }) == 0.0
    };
    let missing = parts.iter().enumerate().filter(is_missing);
    Ok(missing.map(|(_, part)| part.parameter.name.clone()).collect())
}

/// Replicas that all have all sums count once.
fn counts_replica(mesh: &Mesh, weights: &Weights, owned: &[Range<usize>]) -> bool {
    let all = owned.iter().map(Range::len).sum::<usize>() == weights.holding().length();
    !all || mesh.at.data == 0
}

fn intersection(a: &Range<usize>, b: &Range<usize>) -> Range<usize> {
    a.start.max(b.start)..a.end.min(b.end)
}
