//! Linear layers: `y = x·wᵀ + b`, the gradient of `x`, and gradients of `w` and `b` added in place.

use super::Result;
use super::carrier::{expect_shape, on_real, read, tensor, update};
use super::launch::{Matrix, gemm, sum_over_rows, unfilled, vectorized};
use super::real::Real;
use candle_core::Tensor;
use rayon::prelude::*;

/// Rows of a product that one task computes: a function of the shape alone, so that results do not
/// depend on the number of threads. Every task packs the whole right side anew, so few rows cost
/// time; and few tasks leave threads idle.
fn rows_per_task(rows: usize) -> usize {
    rows.div_ceil(4).next_multiple_of(8).clamp(24, 128)
}

/// `x·wᵀ + bias`: `x` is `[tokens, inputs]`, `weight` `[outputs, inputs]`, `bias` `[outputs]`;
/// gives `[tokens, outputs]` in `x`'s format.
pub fn forward(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let (tokens, inputs) = x.dims2()?;
    let (outputs, x_type) = (weight.dim(0)?, x.dtype());
    expect_shape("weight", weight, &[outputs, inputs])?;
    if let Some(bias) = bias {
        expect_shape("bias", bias, &[outputs])?;
    }
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        return super::cuda::linear::forward(x, weight, bias);
    }
    on_real!(x, T => {
        let (x, weight) = (read::<T>(x)?, read::<T>(weight)?);
        let bias = bias.map(read::<T>).transpose()?;
        let mut y = unfilled::<T>(tokens * outputs);
        let weight = Matrix::rows(&weight, outputs, inputs).transposed();
        product(&mut y, Matrix::rows(&x, tokens, inputs), weight, bias.as_deref());
        tensor(y, (tokens, outputs), x_type)
    })
}

/// The gradient of `x`: `dy·w`, `dy` being `[tokens, outputs]`, in `dy`'s format.
pub fn backward_input(dy: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let (tokens, outputs) = dy.dims2()?;
    let inputs = weight.dim(1)?;
    expect_shape("weight", weight, &[outputs, inputs])?;
    #[cfg(feature = "cuda")]
    if dy.device().is_cuda() {
        return super::cuda::linear::backward_input(dy, weight);
    }
    on_real!(dy, T => {
        let (values, weight) = (read::<T>(dy)?, read::<T>(weight)?);
        let mut dx = unfilled::<T>(tokens * inputs);
        let weight = Matrix::rows(&weight, outputs, inputs);
        product(&mut dx, Matrix::rows(&values, tokens, outputs), weight, None);
        tensor(dx, (tokens, inputs), dy.dtype())
    })
}

/// What a gradient is added to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Onto {
    /// What is there.
    Sum,
    /// Nothing: what is there is not read.
    Nothing,
}

/// Adds `dyᵀ·x` to `weight_gradient` `[outputs, inputs]`, or puts it there.
pub fn backward_weight(
    dy: &Tensor,
    x: &Tensor,
    weight_gradient: &Tensor,
    onto: Onto,
) -> Result<()> {
    let (tokens, outputs) = dy.dims2()?;
    let inputs = x.dim(1)?;
    expect_shape("x", x, &[tokens, inputs])?;
    expect_shape("weight_gradient", weight_gradient, &[outputs, inputs])?;
    #[cfg(feature = "cuda")]
    if dy.device().is_cuda() {
        return super::cuda::linear::backward_weight(dy, x, weight_gradient, onto);
    }
    on_real!(dy, T => {
        let (dy, x) = (read::<T>(dy)?, read::<T>(x)?);
        let dy = Matrix::rows(&dy, tokens, outputs).transposed();
        let x = Matrix::rows(&x, tokens, inputs);
        update::<T, _>(weight_gradient, |sum| put_product(sum, dy, x, onto))
    })
}

/// Adds the sum of `dy`'s rows to `bias_gradient` `[outputs]`.
pub fn backward_bias(dy: &Tensor, bias_gradient: &Tensor) -> Result<()> {
    let (tokens, outputs) = dy.dims2()?;
    expect_shape("bias_gradient", bias_gradient, &[outputs])?;
    #[cfg(feature = "cuda")]
    if dy.device().is_cuda() {
        return super::cuda::linear::backward_bias(dy, bias_gradient);
    }
    on_real!(dy, T => {
        let dy = read::<T>(dy)?;
        let dy: &[T] = &dy;
        update::<T, _>(bias_gradient, |sum| {
            sum_over_rows(sum, tokens, outputs, |rows, part| {
                add_rows(part, &dy[rows.start * outputs..rows.end * outputs]);
            });
        })
    })
}

/// `out = left · right (+ bias per row)`, blocks of rows in parallel.
fn product<T: Real>(out: &mut [T], left: Matrix<'_, T>, right: Matrix<'_, T>, bias: Option<&[T]>) {
    in_row_blocks(out, left, right.columns, |out, left| {
        if let Some(bias) = bias {
            out.chunks_exact_mut(right.columns).for_each(|row| row.copy_from_slice(bias));
        }
        gemm(out, left, right, bias.is_some());
    });
}

/// `out = left · right`, or `out += …`, blocks of `out`'s rows in parallel.
fn put_product<T: Real>(out: &mut [T], left: Matrix<'_, T>, right: Matrix<'_, T>, onto: Onto) {
    if left.columns > 0 {
        in_row_blocks(out, left, right.columns, |out, left| {
            gemm(out, left, right, onto == Onto::Sum);
        });
    } else if onto == Onto::Nothing {
        out.fill(T::ZERO);
    }
}

/// Does `work` on blocks of `out`'s rows, `width` wide, each with its rows of `left`, in parallel.
fn in_row_blocks<T: Real>(
    out: &mut [T],
    left: Matrix<'_, T>,
    width: usize,
    work: impl Fn(&mut [T], Matrix<'_, T>) + Sync,
) {
    if width == 0 {
        return;
    }
    let per_task = rows_per_task(left.rows);
    out.par_chunks_mut(per_task * width).enumerate().for_each(|(block, out)| {
        let rows = out.len() / width;
        let first = block * per_task * left.row_stride;
        work(out, Matrix { values: &left.values[first..], rows, ..left });
    });
}

vectorized! {
    /// Adds every row of `rows` to `sum`.
    pub(super) fn add_rows<T: Real>(sum: &mut [T], rows: &[T]) {
        for row in rows.chunks_exact(sum.len().max(1)) {
            for (sum, value) in sum.iter_mut().zip(row) {
                *sum += *value;
            }
        }
    }
}
