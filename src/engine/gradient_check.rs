//! The check after the first backward pass that no parameter is without a gradient: a lost gradient
//! is silent otherwise.

use crate::kernels::reduce;
use crate::layout::holding::{Part, intersection};
use crate::layout::parameters::is_vocabulary;
use crate::model::weights::Weights;
use crate::parallel::mesh::Mesh;
use candle_core::Result;
use std::ops::Range;

/// Names of the parameters that this rank holds, that learn, and whose gradient is zeros; `owned` are
/// the elements of the buffers whose sums over the replicas it has.
///
/// A tensor rank's rows of the vocabulary may be without a gradient for good, when no id of theirs is
/// in the batch: the vocabulary is looked at over all tensor ranks.
pub fn without_gradient(
    mesh: &Mesh,
    weights: &Weights,
    owned: &[Range<usize>],
) -> Result<Vec<String>> {
    let parts = weights.holding().parts();
    let here = |part: &Part| -> Result<f64> {
        let both = owned.iter().map(|owned| intersection(&part.range, owned));
        reduce::sum_of_squares_in(weights.gradients(), both, |_| Ok(()))
    };
    let here = parts.iter().map(here).collect::<Result<Vec<f64>>>()?;
    let all_replicas = mesh.data.sum_numbers(&here)?;
    let all_tensor_ranks = mesh.tensor.sum_numbers(&all_replicas)?;
    let is_missing = |(at, part): &(usize, &Part)| {
        let vocabulary = is_vocabulary(&part.parameter.name);
        let squares = if vocabulary { all_tensor_ranks[*at] } else { all_replicas[*at] };
        part.learns && squares == 0.0
    };
    let missing = parts.iter().enumerate().filter(is_missing);
    Ok(missing.map(|(_, part)| part.parameter.name.clone()).collect())
}
