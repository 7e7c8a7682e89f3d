//! Rows of a norm on the CPU.

#![expect(clippy::inline_always, reason = "parts of loops that are built once per instruction set")]

use super::launch::vectorized;
use super::norm::{Kind, Norm};
use super::real::Real;

/// A norm in its own precision.
#[derive(Clone, Copy)]
pub(super) struct Parameters<'a, T> {
    centered: bool,
    /// Added to the stored weight.
    offset: T,
    epsilon: T,
    weight: &'a [T],
    bias: Option<&'a [T]>,
}

impl<'a, T: Real> Parameters<'a, T> {
    pub(super) fn new(norm: &Norm<'_>, weight: &'a [T], bias: Option<&'a [T]>) -> Self {
        let offset = if norm.kind == Kind::LayerNorm1p { T::ONE } else { T::ZERO };
        let centered = norm.kind != Kind::RmsNorm;
        Parameters { centered, offset, epsilon: T::of(norm.epsilon), weight, bias }
    }
}

/// Interleaved sums, so that they vectorise.
const LANES: usize = 16;

/// Σ f(x, y) over two equally long rows.
#[inline(always)]
fn sum_pairs<T: Real>(x: &[T], y: &[T], term: impl Fn(T, T, T) -> T) -> T {
    let mut sums = [T::ZERO; LANES];
    let (xs, ys) = (x.chunks_exact(LANES), y.chunks_exact(LANES));
    let (x_rest, y_rest) = (xs.remainder(), ys.remainder());
    for (x, y) in xs.zip(ys) {
        for lane in 0..LANES {
            sums[lane] = term(x[lane], y[lane], sums[lane]);
        }
    }
    for (lane, (x, y)) in x_rest.iter().zip(y_rest).enumerate() {
        sums[lane] = term(*x, *y, sums[lane]);
    }
    let mut step = LANES / 2;
    while step > 0 {
        for lane in 0..step {
            let other = sums[lane + step];
            sums[lane] += other;
        }
        step /= 2;
    }
    sums[0]
}

vectorized! {
    pub(super) fn forward_block<T: Real>(x: &[T], by: Parameters<'_, T>, y: &mut [T], moments: &mut [T]) {
        let width = by.weight.len();
        let share = T::of(1.0 / width as f64);
        let rows = x.chunks_exact(width).zip(y.chunks_exact_mut(width));
        for ((x, y), moments) in rows.zip(moments.chunks_exact_mut(2)) {
            let mean = if by.centered {
                sum_pairs(x, x, |x, _, sum| sum + x) * share
            } else {
                T::ZERO
            };
            let squares = sum_pairs(x, x, |x, _, sum| (x - mean).fma(x - mean, sum));
            let scale = T::ONE / squares.fma(share, by.epsilon).root();
            moments[0] = mean;
            moments[1] = scale;
            output_row(x, (mean, scale), by, y);
        }
    }
}

vectorized! {
    /// The output of rows whose moments are known.
    pub(super) fn output_block<T: Real>(x: &[T], moments: &[T], by: Parameters<'_, T>, y: &mut [T]) {
        let width = by.weight.len();
        let rows = x.chunks_exact(width).zip(y.chunks_exact_mut(width));
        for ((x, y), moments) in rows.zip(moments.chunks_exact(2)) {
            output_row(x, (moments[0], moments[1]), by, y);
        }
    }
}

#[inline(always)]
fn output_row<T: Real>(x: &[T], (mean, scale): (T, T), by: Parameters<'_, T>, y: &mut [T]) {
    for ((y, x), weight) in y.iter_mut().zip(x).zip(by.weight) {
        *y = (*x - mean) * scale * (*weight + by.offset);
    }
    if let Some(bias) = by.bias {
        for (y, bias) in y.iter_mut().zip(bias) {
            *y += *bias;
        }
    }
}

vectorized! {
    /// With `n = (x - mean)·scale` and `g = dy·weight`:
    /// `dx = scale · (g - mean(g) - n·mean(g·n))`, without `mean(g)` for rmsnorm.
    pub(super) fn backward_block<T: Real>(
        rows: Rows<'_, T>,
        by: Parameters<'_, T>,
        residual: Option<&[T]>,
        dx: &mut [T],
    ) {
        let Rows { x, dy, moments } = rows;
        let width = by.weight.len();
        let share = T::of(1.0 / width as f64);
        for (row, dx) in dx.chunks_exact_mut(width).enumerate() {
            let range = row * width..(row + 1) * width;
            let (x, dy) = (&x[range.clone()], &dy[range.clone()]);
            let (mean, scale) = (moments[2 * row], moments[2 * row + 1]);
            for ((dx, dy), weight) in dx.iter_mut().zip(dy).zip(by.weight) {
                *dx = *dy * (*weight + by.offset);
            }
            let mean_g = if by.centered {
                sum_pairs(dx, dx, |g, _, sum| sum + g) * share
            } else {
                T::ZERO
            };
            let along = sum_pairs(dx, x, |g, x, sum| g.fma((x - mean) * scale, sum)) * share;
            for (dx, x) in dx.iter_mut().zip(x) {
                *dx = scale * (*dx - mean_g - (*x - mean) * scale * along);
            }
            if let Some(residual) = residual {
                for (dx, residual) in dx.iter_mut().zip(&residual[range]) {
                    *dx += *residual;
                }
            }
        }
    }
}

/// Rows of the input, of the output's gradient, and their moments.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a, T> {
    pub(super) x: &'a [T],
    pub(super) dy: &'a [T],
    /// (mean, scale) per row.
    pub(super) moments: &'a [T],
}

vectorized! {
    pub(super) fn parameter_block<T: Real>(
        x: &[T],
        dy: &[T],
        moments: &[T],
        weight: &mut [T],
        bias: &mut [T],
    ) {
        let width = weight.len();
        let rows = x.chunks_exact(width).zip(dy.chunks_exact(width));
        for ((x, dy), moments) in rows.zip(moments.chunks_exact(2)) {
            let (mean, scale) = (moments[0], moments[1]);
            let sums = weight.iter_mut().zip(bias.iter_mut());
            for ((weight, bias), (x, dy)) in sums.zip(x.iter().zip(dy)) {
                *weight = dy.fma((*x - mean) * scale, *weight);
                *bias += *dy;
            }
        }
    }
}
