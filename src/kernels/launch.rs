//! How CPU kernels are started: on the best instructions that the processor has, cut into row blocks.

#![expect(
    unsafe_code,
    reason = "matrix products by pointer, run-time choice of instructions, unfilled memory"
)]

use super::real::Real;
use rayon::prelude::*;

/// Work that the compiler may build once per instruction set.
pub(super) trait Vectorized {
    /// What the work gives.
    type Output;

    /// The work; always inlined, so that it is built with the caller's instructions.
    fn run(self) -> Self::Output;
}

/// Defines a function over a [`Real`] that runs on the best instructions of this processor.
///
/// Helpers that its body calls must be `#[inline(always)]`, or they are built for any processor.
macro_rules! vectorized {
    ($(#[$meta:meta])* $visibility:vis fn $name:ident<T: Real>(
        $($argument:ident: $type:ty),* $(,)?
    ) $(-> $output:ty)? $body:block) => {
        $(#[$meta])*
        $visibility fn $name<T: Real>($($argument: $type),*) $(-> $output)? {
            struct Body;
            impl<T: Real> $crate::kernels::launch::Vectorized
                for (Body, std::marker::PhantomData<T>, $($type),*)
            {
                type Output = $crate::kernels::launch::vectorized!(@output $($output)?);

                #[inline(always)]
                fn run(self) -> Self::Output {
                    let (_, _, $($argument),*) = self;
                    $body
                }
            }
            $crate::kernels::launch::on_best_instructions((
                Body,
                std::marker::PhantomData::<T>,
                $($argument),*
            ))
        }
    };
    (@output) => { () };
    (@output $output:ty) => { $output };
}
pub(super) use vectorized;

/// Runs `work` with the widest vectors that this processor and this code know.
#[inline]
pub(super) fn on_best_instructions<W: Vectorized>(work: W) -> W::Output {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: the processor has just been found to have both features.
            return unsafe { with_avx2(work) };
        }
    }
    work.run()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn with_avx2<W: Vectorized>(work: W) -> W::Output {
    work.run()
}

/// Memory for `length` numbers whose values are not set yet, without the cost of filling it.
///
/// The caller writes every number before it reads any.
#[expect(clippy::uninit_vec, reason = "every caller writes all of it before it reads any")]
pub(super) fn unfilled<T: Real>(length: usize) -> Vec<T> {
    let mut values = Vec::<T>::with_capacity(length);
    // SAFETY: the capacity is there; `Real` is f32 and f64, for which every bit pattern is a value
    // and nothing is dropped; each caller in this room overwrites all of it before reading.
    unsafe {
        values.set_len(length);
    }
    values
}

/// A matrix inside a slice, read by strides.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a, T> {
    pub(super) values: &'a [T],
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) row_stride: usize,
    pub(super) column_stride: usize,
}

impl<'a, T> Matrix<'a, T> {
    /// A matrix whose rows lie one after the other.
    pub(super) fn rows(values: &'a [T], rows: usize, columns: usize) -> Self {
        Matrix { values, rows, columns, row_stride: columns, column_stride: 1 }
    }

    /// The same numbers with rows and columns exchanged.
    pub(super) fn transposed(self) -> Self {
        Matrix {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }

    /// Panics unless the last element lies inside the slice.
    fn assert_inside(&self) {
        if self.rows > 0 && self.columns > 0 {
            let last = (self.rows - 1) * self.row_stride + (self.columns - 1) * self.column_stride;
            assert!(last < self.values.len(), "a matrix reaches beyond its numbers");
        }
    }
}

/// Terms of a sum that the library adds in one go whatever the processor: more of them it cuts by the
/// size of the first-level cache (`kernel_params` of gemm-common).
const DEPTH: usize = 512;

/// `out = left · right`, or `out += left · right` when `add`; `out` has `right.columns` per row.
///
/// Runs on the calling thread and cuts long sums itself, so their order depends on the shapes alone.
pub(super) fn gemm<T: Real>(out: &mut [T], left: Matrix<'_, T>, right: Matrix<'_, T>, add: bool) {
    assert_eq!(left.columns, right.rows, "inner sizes of a matrix product");
    assert_eq!(out.len(), left.rows * right.columns, "size of a matrix product");
    let terms = left.columns;
    if out.is_empty() {
        return;
    }
    if terms == 0 && !add {
        out.fill(T::ZERO);
    }
    for first in (0..terms).step_by(DEPTH) {
        let count = DEPTH.min(terms - first);
        let left =
            Matrix { values: &left.values[first * left.column_stride..], columns: count, ..left };
        let right =
            Matrix { values: &right.values[first * right.row_stride..], rows: count, ..right };
        gemm_at_once(out, left, right, add || first > 0);
    }
}

/// [`gemm`] of matrices whose sums are short.
#[expect(clippy::cast_possible_wrap, reason = "no slice is longer than isize::MAX")]
fn gemm_at_once<T: Real>(out: &mut [T], left: Matrix<'_, T>, right: Matrix<'_, T>, add: bool) {
    left.assert_inside();
    right.assert_inside();
    let kept = if add { T::ONE } else { T::ZERO };
    // SAFETY: all three matrices lie inside their slices (asserted above and by `gemm`), `out` is borrowed
    // mutably and so overlaps neither, and slices are no longer than isize::MAX bytes, so that the
    // strides fit; without `add`, `out` is not read.
    unsafe {
        gemm::gemm(
            left.rows,
            right.columns,
            left.columns,
            out.as_mut_ptr(),
            1,
            right.columns as isize,
            add,
            left.values.as_ptr(),
            left.column_stride as isize,
            left.row_stride as isize,
            right.values.as_ptr(),
            right.column_stride as isize,
            right.row_stride as isize,
            kept,
            T::ONE,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// Rows per block when one thread works through rows of `width` numbers: a function of the shape
/// alone, so that results do not depend on the number of threads.
pub(super) fn rows_per_block(width: usize) -> usize {
    (16_384 / width.max(1)).clamp(1, 512)
}

/// Calls `work(first_row, rows)` for blocks of rows of `out`, in parallel.
pub(super) fn for_row_blocks<T: Real>(
    out: &mut [T],
    width: usize,
    work: impl Fn(usize, &mut [T]) + Sync + Send,
) {
    if width == 0 {
        return;
    }
    let rows = rows_per_block(width);
    out.par_chunks_mut(rows * width)
        .enumerate()
        .for_each(|(block, chunk)| work(block * rows, chunk));
}

/// `sum += Σ_blocks partial(rows of the block)`: blocks in parallel, added in order.
///
/// `partial` gets a range of rows and adds its sums to a zeroed slice as long as `sum`.
pub(super) fn sum_over_rows<T: Real>(
    sum: &mut [T],
    rows: usize,
    width: usize,
    partial: impl Fn(std::ops::Range<usize>, &mut [T]) + Sync + Send,
) {
    let per_block = rows_per_block(width);
    let blocks: Vec<Vec<T>> = (0..rows.div_ceil(per_block))
        .into_par_iter()
        .map(|block| {
            let mut part = vec![T::ZERO; sum.len()];
            partial(block * per_block..rows.min((block + 1) * per_block), &mut part);
            part
        })
        .collect();
    for part in blocks {
        for (sum, part) in sum.iter_mut().zip(part) {
            *sum += part;
        }
    }
}
