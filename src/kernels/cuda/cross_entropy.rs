//! Cross entropy: one pass over the logits on one rank, or statistics and gradient apart.

use super::context::{format, of};
use super::{check, ffi, hold, size};
use crate::kernels::Result;
use crate::kernels::cross_entropy::{Row, Targets};
use crate::kernels::device::to_host;
use crate::kernels::timing::Part;
use candle_core::{DType, Tensor, bail};

/// The loss sum, NaN where a label is no id; `logits` becomes its gradient times `scale`.
pub(in crate::kernels) fn forward_backward(
    logits: &Tensor,
    targets: &Targets<'_>,
    scale: f64,
) -> Result<f64> {
    let (rows, columns) = logits.dims2()?;
    let context = of(logits)?;
    let labels = context.words(targets.labels)?;
    let statistics = context.unfilled((rows, 4), DType::F32)?;
    let (values, labels, parts) = (hold(logits)?, hold(&labels)?, hold(&statistics)?);
    let work = context.work(Part::Head)?;
    let code = ffi::sft_cross_entropy(
        work.stream(),
        format(logits.dtype())?,
        values.at(),
        labels.at(),
        size(targets.vocab_size),
        parts.at(),
        scale as f32,
        size(rows),
        size(columns),
    );
    check("cross entropy", code)?;
    drop((parts, work));
    loss_sum(&statistics)
}

/// Each row's part of the softmax, `[rows, 4]` as `cross_entropy.cu` has them.
pub(in crate::kernels) fn statistics(logits: &Tensor, targets: &Targets<'_>) -> Result<Tensor> {
    let (rows, columns) = logits.dims2()?;
    let context = of(logits)?;
    let labels = context.words(targets.labels)?;
    let statistics = context.unfilled((rows, 4), DType::F32)?;
    let (values, labels, parts) = (hold(logits)?, hold(&labels)?, hold(&statistics)?);
    let work = context.work(Part::Head)?;
    let code = ffi::sft_cross_entropy_statistics(
        work.stream(),
        format(logits.dtype())?,
        values.at(),
        labels.at(),
        size(targets.first),
        size(targets.vocab_size),
        parts.at(),
        size(rows),
        size(columns),
    );
    check("cross entropy", code)?;
    drop((parts, work));
    Ok(statistics)
}

/// The statistics of whole rows from those of their `parts` parts, which lie one after the other.
pub(in crate::kernels) fn merged(all: &Tensor, parts: usize) -> Result<Tensor> {
    let rows = all.dim(0)? / parts;
    if all.dims2()? != (rows * parts, 4) || all.dtype() != DType::F32 {
        bail!("{:?} are no statistics of {parts} parts", all.shape())
    }
    let context = of(all)?;
    let merged = context.unfilled((rows, 4), DType::F32)?;
    let (all, to) = (hold(all)?, hold(&merged)?);
    let work = context.work(Part::Head)?;
    let code = ffi::sft_merge_statistics(work.stream(), all.at(), size(parts), size(rows), to.at());
    check("the merging of statistics", code)?;
    drop((to, work));
    Ok(merged)
}

/// Σ -log p(label) over all rows; NaN where no part had a label.
pub(in crate::kernels) fn loss_sum(statistics: &Tensor) -> Result<f64> {
    let context = of(statistics)?;
    let total = Tensor::zeros(1, DType::F64, context.device())?;
    let (parts, sum) = (hold(statistics)?, hold(&total)?);
    let work = context.work(Part::Head)?;
    let rows = size(statistics.dim(0)?);
    check("loss sum", ffi::sft_loss_sum(work.stream(), parts.at(), rows, sum.at()))?;
    drop((sum, work));
    Ok(to_host(&total)?.to_vec1::<f64>()?[0])
}

/// The statistics on the host.
pub(in crate::kernels) fn rows(statistics: &Tensor) -> Result<Vec<Row>> {
    let row = |row: Vec<f32>| Row {
        max: f64::from(row[0]),
        argmax: if row[0] == f32::NEG_INFINITY { usize::MAX } else { row[3].to_bits() as usize },
        sum: f64::from(row[1]),
        label: (!row[2].is_nan()).then_some(f64::from(row[2])),
    };
    Ok(to_host(statistics)?.to_vec2::<f32>()?.into_iter().map(row).collect())
}

/// Replaces `logits` by the gradient of the loss sum times `scale`.
pub(in crate::kernels) fn gradient_in_place(
    logits: &Tensor,
    targets: &Targets<'_>,
    statistics: &Tensor,
    scale: f64,
) -> Result<()> {
    let (count, columns) = logits.dims2()?;
    if statistics.dims2()? != (count, 4) {
        bail!("statistics {:?} for {count} rows of logits", statistics.shape())
    }
    let context = of(logits)?;
    let labels = context.words(targets.labels)?;
    let (values, labels, parts) = (hold(logits)?, hold(&labels)?, hold(statistics)?);
    let work = context.work(Part::Head)?;
    let code = ffi::sft_cross_entropy_gradient(
        work.stream(),
        format(logits.dtype())?,
        values.at(),
        labels.at(),
        size(targets.first),
        size(targets.vocab_size),
        parts.at(),
        scale as f32,
        size(count),
        size(columns),
    );
    check("cross entropy's gradient", code)
}
