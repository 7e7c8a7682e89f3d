//! The residual stream: `residual + dropout(x + bias)`, and the way back.

use super::Result;
use super::carrier::{expect_shape, on_real, read, tensor};
use super::dropout::Dropout;
use super::launch::{for_row_blocks, unfilled, vectorized};
use super::real::Real;
use candle_core::Tensor;

/// `residual + dropout(x + bias)` in the residual's format, all `[tokens, width]` but the bias `[width]`.
///
/// Backward: the residual's gradient is `dy`; that of `x` is `dy`, or `dropout::apply(dy)` with the
/// same dropout; the bias's is the sum of the rows of the latter (`linear::backward_bias`).
pub fn forward(
    x: &Tensor,
    bias: Option<&Tensor>,
    dropout: Option<&Dropout<'_>>,
    residual: &Tensor,
) -> Result<Tensor> {
    let (tokens, width) = x.dims2()?;
    expect_shape("residual", residual, &[tokens, width])?;
    if let Some(bias) = bias {
        expect_shape("bias", bias, &[width])?;
    }
    if let Some(dropout) = dropout {
        dropout.check(tokens)?;
    }
    let dtype = residual.dtype();
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        return super::cuda::residual::forward(x, bias, dropout, Some(residual));
    }
    on_real!(x, T => {
        let (x, residual) = (read::<T>(x)?, read::<T>(residual)?);
        let (x, residual): (&[T], &[T]) = (&x, &residual);
        let bias = bias.map(read::<T>).transpose()?;
        let bias = bias.as_deref();
        let mut y = unfilled::<T>(x.len());
        for_row_blocks(&mut y, width, |first, rows| {
            for (row, y) in (first..).zip(rows.chunks_exact_mut(width)) {
                let range = row * width..(row + 1) * width;
                add_row(y, &x[range.clone()], bias);
                if let Some(dropout) = dropout {
                    dropout.for_row(row, width, |column, factor| y[column] *= T::of(factor));
                }
                add(y, &residual[range]);
            }
        });
        tensor(y, (tokens, width), dtype)
    })
}

/// `a + b` in `a`'s format, of equal shapes.
pub fn sum(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    expect_shape("b", b, a.dims())?;
    #[cfg(feature = "cuda")]
    if a.device().is_cuda() {
        return super::cuda::residual::forward(b, None, None, Some(a));
    }
    on_real!(a, T => {
        let (left, right) = (read::<T>(a)?, read::<T>(b)?);
        let (left, right): (&[T], &[T]) = (&left, &right);
        let mut sum = unfilled::<T>(left.len());
        for_row_blocks(&mut sum, 1, |first, block| {
            let range = first..first + block.len();
            add_row(block, &left[range.clone()], Some(&right[range]));
        });
        tensor(sum, a.shape(), a.dtype())
    })
}

vectorized! {
    /// `y = x + bias`.
    fn add_row<T: Real>(y: &mut [T], x: &[T], bias: Option<&[T]>) {
        match bias {
            Some(bias) => {
                for ((y, x), bias) in y.iter_mut().zip(x).zip(bias) {
                    *y = *x + *bias;
                }
            }
            None => y.copy_from_slice(x),
        }
    }
}

vectorized! {
    /// `y += x`.
    pub(super) fn add<T: Real>(y: &mut [T], x: &[T]) {
        for (y, x) in y.iter_mut().zip(x) {
            *y += *x;
        }
    }
}
