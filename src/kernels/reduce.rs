//! Sums and changes of whole buffers: squared norm, scale, add; always in the same order.

use super::Result;
use super::carrier::{expect_shape, on_real, read, tensor, update};
use super::launch::{unfilled, vectorized};
use super::real::Real;
use super::residual::add;
use candle_core::Tensor;
use rayon::prelude::*;
use std::ops::Range;

/// Numbers per task.
const BLOCK: usize = 1 << 15;

/// Σ x², in f64: blocks of fixed length, added in order.
pub fn sum_of_squares(x: &Tensor) -> Result<f64> {
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        return Ok(super::cuda::reduce::squares(std::slice::from_ref(x), |_| Ok(()))?.iter().sum());
    }
    on_real!(x, T => {
        let x = read::<T>(x)?;
        let parts: Vec<f64> = x.par_chunks(BLOCK).map(block_squares).collect();
        Ok(parts.iter().sum())
    })
}

/// Σ x² over `ranges` of a flat buffer, in f64: their sums, added in their order.
///
/// They are read from the last to the first; `ready` is told each before that.
pub fn sum_of_squares_in(
    buffer: &Tensor,
    ranges: impl Iterator<Item = Range<usize>>,
    mut ready: impl FnMut(&Range<usize>) -> Result<()>,
) -> Result<f64> {
    let ranges: Vec<Range<usize>> = ranges.filter(|range| !range.is_empty()).collect();
    let parts = ranges.iter().map(|range| buffer.narrow(0, range.start, range.len()));
    let parts = parts.collect::<Result<Vec<_>>>()?;
    #[cfg(feature = "cuda")]
    if buffer.device().is_cuda() {
        let squares = super::cuda::reduce::squares(&parts, |at| ready(&ranges[at]))?;
        return Ok(squares.iter().fold(0.0, |sum, each| sum + each));
    }
    let mut squares = vec![0.0; parts.len()];
    for (at, part) in parts.iter().enumerate().rev() {
        ready(&ranges[at])?;
        squares[at] = sum_of_squares(part)?;
    }
    Ok(squares.iter().fold(0.0, |sum, each| sum + each))
}

/// `x *= factor`, in place.
pub fn scale_in_place(x: &Tensor, factor: f64) -> Result<()> {
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        return super::cuda::reduce::scale_in_place(x, factor);
    }
    on_real!(x, T => update::<T, _>(x, |x| {
        x.par_chunks_mut(BLOCK).for_each(|block| scale(block, T::of(factor)));
    }))
}

/// `x = 0`, in place.
pub fn clear(x: &Tensor) -> Result<()> {
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        return super::cuda::reduce::clear(x);
    }
    on_real!(x, T => update::<T, _>(x, |x| x.fill(T::ZERO)))
}

/// `x = 0` in these ranges of a flat buffer, in place; meant for many short ones.
pub fn clear_ranges(x: &Tensor, ranges: &[Range<usize>]) -> Result<()> {
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        return super::cuda::reduce::clear_ranges(x, ranges);
    }
    on_real!(x, T => update::<T, _>(x, |x| {
        for range in ranges {
            x[range.clone()].fill(T::ZERO);
        }
    }))
}

/// The sum of tensors of equal shape, added in their order; there is at least one.
pub fn total(parts: &[Tensor]) -> Result<Tensor> {
    let Some(first) = parts.first() else { candle_core::bail!("nothing to add") };
    for part in parts {
        expect_shape("a part of the sum", part, first.dims())?;
    }
    #[cfg(feature = "cuda")]
    if first.device().is_cuda() {
        return super::cuda::reduce::total(parts, first);
    }
    on_real!(first, T => {
        let values = parts.iter().map(read::<T>).collect::<Result<Vec<_>>>()?;
        let values: Vec<&[T]> = values.iter().map(|values| &**values).collect();
        let mut sum = unfilled::<T>(first.elem_count());
        sum.par_chunks_mut(BLOCK).enumerate().for_each(|(block, sum)| {
            let range = block * BLOCK..block * BLOCK + sum.len();
            sum.copy_from_slice(&values[0][range.clone()]);
            for part in &values[1..] {
                add(sum, &part[range.clone()]);
            }
        });
        tensor(sum, first.shape(), first.dtype())
    })
}

/// `x = y`, in place, rounded to `x`'s format; `y` lies in another buffer.
pub fn put(x: &Tensor, y: &Tensor) -> Result<()> {
    expect_shape("y", y, x.dims())?;
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        return super::cuda::reduce::put(x, y);
    }
    on_real!(x, T => {
        let y = read::<T>(y)?;
        let y: &[T] = &y;
        update::<T, _>(x, |x| x.copy_from_slice(y))
    })
}

/// `x += y`, in place; `y` lies in another buffer.
pub fn add_in_place(x: &Tensor, y: &Tensor) -> Result<()> {
    expect_shape("y", y, x.dims())?;
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        return super::cuda::reduce::add_in_place(x, y);
    }
    on_real!(x, T => {
        let y = read::<T>(y)?;
        let y: &[T] = &y;
        update::<T, _>(x, |x| {
            x.par_chunks_mut(BLOCK).zip(y.par_chunks(BLOCK)).for_each(|(x, y)| add(x, y));
        })
    })
}

vectorized! {
    /// Σ x² over one block, in sixteen interleaved f64 sums.
    fn block_squares<T: Real>(block: &[T]) -> f64 {
        let mut sums = [0.0_f64; 16];
        let lanes = block.chunks_exact(16);
        let rest = lanes.remainder();
        for lane in lanes {
            for (sum, value) in sums.iter_mut().zip(lane) {
                let value = value.wide();
                *sum = value.mul_add(value, *sum);
            }
        }
        for (sum, value) in sums.iter_mut().zip(rest) {
            *sum += value.wide() * value.wide();
        }
        sums.iter().sum()
    }
}

vectorized! {
    fn scale<T: Real>(block: &mut [T], factor: T) {
        for value in block {
            *value *= factor;
        }
    }
}
