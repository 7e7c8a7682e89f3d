//! Cross entropy: one pass over the logits on one rank, or statistics and gradient apart.

use super::context::{format, of};
use super::{check, ffi, hold, size};
use crate::kernels::Result;
use crate::kernels::cross_entropy::{Row, Targets};
use crate::kernels::device::to_host;
use crate::kernels::timing::Part;
use candle_core::{DType, Tensor, bail};

/// The loss sum; `logits` becomes its gradient times `scale`.
pub(in crate::kernels) fn forward_backward(
    logits: &Tensor,
    targets: &Targets<'_>,
    scale: f64,
) -> Result<f64> {
    let (rows, columns) = logits.dims2()?;
    let context = of(logits)?;
    let labels = context.words(targets.labels)?;
    let statistics = context.unfilled((rows, 4), DType::F32)?;
    let total = Tensor::zeros(1, DType::F64, context.device())?;
    let (values, labels, parts, sum) =
        (hold(logits)?, hold(&labels)?, hold(&statistics)?, hold(&total)?);
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
    check("loss sum", ffi::sft_loss_sum(work.stream(), parts.at(), size(rows), sum.at()))?;
    drop((parts, sum, work));
    let loss = to_host(&total)?.to_vec1::<f64>()?[0];
    // A label outside the vocabulary has no logit, which shows as NaN; so does a logit that is NaN.
    if let Some(label) = targets.labels.iter().find(|label| **label as usize >= targets.vocab_size)
    {
        bail!("label {label} is not below the vocabulary's size {}", targets.vocab_size)
    }
    Ok(loss)
}

/// Each row's part of the softmax.
pub(in crate::kernels) fn statistics(logits: &Tensor, targets: &Targets<'_>) -> Result<Vec<Row>> {
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
    let row = |row: Vec<f32>| Row {
        max: f64::from(row[0]),
        argmax: if row[0] == f32::NEG_INFINITY { usize::MAX } else { row[3].to_bits() as usize },
        sum: f64::from(row[1]),
        label: (!row[2].is_nan()).then_some(f64::from(row[2])),
    };
    Ok(to_host(&statistics)?.to_vec2::<f32>()?.into_iter().map(row).collect())
}

/// Replaces `logits` by the gradient of the loss sum times `scale`.
pub(in crate::kernels) fn gradient_in_place(
    logits: &Tensor,
    targets: &Targets<'_>,
    rows: &[Row],
    scale: f64,
) -> Result<()> {
    let (count, columns) = logits.dims2()?;
    let context = of(logits)?;
    let labels = context.words(targets.labels)?;
    let flat: Vec<f32> =
        rows.iter().flat_map(|row| [row.max as f32, row.sum as f32, 0.0, 0.0]).collect();
    let statistics = Tensor::from_vec(flat, (count, 4), context.device())?;
    let (values, labels, parts) = (hold(logits)?, hold(&labels)?, hold(&statistics)?);
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
