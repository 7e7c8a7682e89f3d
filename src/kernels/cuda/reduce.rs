//! Sums and changes of whole buffers.

use super::context::{format, of};
use super::{check, expect_f32, ffi, hold, size};
use crate::kernels::Result;
use crate::kernels::device::to_host;
use crate::kernels::timing::Part;
use candle_core::{DType, Tensor};
use std::ops::Range;

/// Σ x² of each of `parts`, in f64; waits for them. `ready` is told the number of each before it is
/// read, from the last to the first.
pub(in crate::kernels) fn squares(
    parts: &[Tensor],
    mut ready: impl FnMut(usize) -> Result<()>,
) -> Result<Vec<f64>> {
    let Some(first) = parts.first() else { return Ok(Vec::new()) };
    let context = of(first)?;
    let bytes = usize::try_from(ffi::sft_squares_workspace()).unwrap_or_default();
    let workspace = context.unfilled(bytes, DType::U8)?;
    let sums = Tensor::zeros(parts.len(), DType::F64, context.device())?;
    for (at, part) in parts.iter().enumerate().rev() {
        ready(at)?;
        let sum = sums.narrow(0, at, 1)?;
        let (values, memory, sum) = (hold(part)?, hold(&workspace)?, hold(&sum)?);
        let work = context.work(Part::GradientNorm)?;
        let code = ffi::sft_sum_of_squares(
            work.stream(),
            format(part.dtype())?,
            values.at(),
            size(part.elem_count()),
            memory.at(),
            sum.at(),
        );
        check("sum of squares", code)?;
    }
    to_host(&sums)?.to_vec1()
}

/// `x *= factor`.
pub(in crate::kernels) fn scale_in_place(x: &Tensor, factor: f64) -> Result<()> {
    let (context, values) = (of(x)?, hold(x)?);
    let work = context.work(Part::Other)?;
    let code = ffi::sft_scale(
        work.stream(),
        format(x.dtype())?,
        values.at(),
        size(x.elem_count()),
        factor as f32,
    );
    check("scale", code)
}

/// `x = 0`.
pub(in crate::kernels) fn clear(x: &Tensor) -> Result<()> {
    let (context, values) = (of(x)?, hold(x)?);
    let bytes = x.elem_count() * x.dtype().size_in_bytes();
    let work = context.work(Part::Other)?;
    let code = ffi::sft_clear(work.stream(), values.at(), size(bytes));
    check("clear", code)
}

/// `x = 0` in these ranges, each of which should be short.
pub(in crate::kernels) fn clear_ranges(x: &Tensor, ranges: &[Range<usize>]) -> Result<()> {
    expect_f32("what is cleared by ranges", x)?;
    let context = of(x)?;
    let Some(bounds) = context.bounds(ranges)? else { return Ok(()) };
    let (values, bounds) = (hold(x)?, hold(&bounds)?);
    let work = context.work(Part::Other)?;
    let code = ffi::sft_clear_ranges(work.stream(), values.at(), bounds.at(), size(ranges.len()));
    check("clear", code)
}

/// `x = y`, rounded to `x`'s format.
pub(in crate::kernels) fn put(x: &Tensor, y: &Tensor) -> Result<()> {
    let (context, to, from) = (of(x)?, hold(x)?, hold(y)?);
    let work = context.work(Part::Other)?;
    let code = ffi::sft_cast(
        work.stream(),
        format(y.dtype())?,
        from.at(),
        format(x.dtype())?,
        to.at(),
        size(x.elem_count()),
    );
    check("cast", code)
}

/// `x += y`.
pub(in crate::kernels) fn add_in_place(x: &Tensor, y: &Tensor) -> Result<()> {
    let (context, to, from) = (of(x)?, hold(x)?, hold(y)?);
    let count = size(x.elem_count());
    let work = context.work(Part::Other)?;
    let code = ffi::sft_add(
        work.stream(),
        format(x.dtype())?,
        to.at(),
        format(y.dtype())?,
        from.at(),
        count,
        1.0,
    );
    check("add", code)
}

/// The sum of tensors of equal shape, added in their order to a copy of the first.
pub(in crate::kernels) fn total(parts: &[Tensor], first: &Tensor) -> Result<Tensor> {
    let sum = of(first)?.unfilled(first.shape(), first.dtype())?;
    put(&sum, first)?;
    for part in &parts[1..] {
        add_in_place(&sum, part)?;
    }
    Ok(sum)
}
