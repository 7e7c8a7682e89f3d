//! The arithmetic of a collective, which the last rank to join does for all of them.

use crate::kernels::reduce;
use crate::parallel::group::{Collective, Reduction};
use candle_core::{DType, Result, Tensor, bail};

/// Refuses a tensor that `collective` cannot take.
pub(super) fn check(collective: Collective, x: &Tensor, ranks: usize) -> Result<()> {
    if !x.is_contiguous() {
        bail!("{collective:?} takes contiguous tensors, not {:?}", x.layout())
    }
    if collective.cuts() && !x.dim(0)?.is_multiple_of(ranks) {
        bail!("{collective:?} cannot cut {:?} into {ranks} pieces", x.shape())
    }
    match collective {
        Collective::Broadcast { root } if root >= ranks => {
            bail!("rank {root} is not in a group of {ranks}")
        }
        _ => Ok(()),
    }
}

/// Every rank's result, from every rank's tensor.
pub(super) fn carry_out(collective: Collective, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
    let ranks = inputs.len();
    let shared = |result: Tensor| vec![result; ranks];
    match collective {
        Collective::AllReduce(by) => Ok(shared(reduced(inputs, by)?)),
        Collective::AllGather => Ok(shared(Tensor::cat(inputs, 0)?)),
        Collective::Broadcast { root } => Ok(shared(inputs[root].clone())),
        Collective::ReduceScatter => {
            (0..ranks).map(|rank| reduced(&pieces(inputs, rank)?, Reduction::Sum)).collect()
        }
        Collective::AllReduceInPlace(by) => {
            let result = reduced(inputs, by)?;
            for input in inputs {
                input.slice_set(&result, 0, 0)?;
            }
            Ok(inputs.to_vec())
        }
        Collective::ReduceScatterInPlace => {
            for (rank, input) in inputs.iter().enumerate() {
                let sum = reduced(&pieces(inputs, rank)?, Reduction::Sum)?;
                input.slice_set(&sum, 0, rank * sum.dim(0)?)?;
            }
            Ok(inputs.to_vec())
        }
        Collective::AllGatherInPlace => {
            for (from, input) in inputs.iter().enumerate() {
                let piece = piece(input, from, ranks)?;
                for (to, target) in inputs.iter().enumerate() {
                    if to != from {
                        target.slice_set(&piece, 0, from * piece.dim(0)?)?;
                    }
                }
            }
            Ok(inputs.to_vec())
        }
    }
}

fn piece(x: &Tensor, number: usize, of: usize) -> Result<Tensor> {
    let length = x.dim(0)? / of;
    x.narrow(0, number * length, length)
}

fn pieces(inputs: &[Tensor], rank: usize) -> Result<Vec<Tensor>> {
    inputs.iter().map(|input| piece(input, rank, inputs.len())).collect()
}

/// All of `inputs` as one, taken in their order.
fn reduced(inputs: &[Tensor], by: Reduction) -> Result<Tensor> {
    match (by, inputs[0].dtype()) {
        (Reduction::Sum, DType::F32 | DType::F64) if inputs[0].device().is_cpu() => {
            reduce::total(inputs)
        }
        // Halves are added in f32 and rounded once.
        (Reduction::Sum, dtype @ (DType::F16 | DType::BF16)) => {
            let wide = |x: &Tensor| x.to_dtype(DType::F32);
            fold(inputs, wide, |sum, x| sum + x)?.to_dtype(dtype)
        }
        (Reduction::Sum, _) => fold(inputs, |x| Ok(x.clone()), |sum, x| sum + x),
        (Reduction::Max, _) => fold(inputs, |x| Ok(x.clone()), |max, x| max.maximum(&x)),
    }
}

fn fold(
    inputs: &[Tensor],
    form: impl Fn(&Tensor) -> Result<Tensor>,
    join: impl Fn(Tensor, Tensor) -> Result<Tensor>,
) -> Result<Tensor> {
    let first = form(&inputs[0])?;
    inputs[1..].iter().try_fold(first, |result, input| join(result, form(input)?))
}
