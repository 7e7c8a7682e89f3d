//! Normalizations, and the sum before them.

use super::context::{Mask, format, of};
use super::{address, check, expect_f32, ffi, hold, hold_optional, in_format, optional, size};
use crate::kernels::Result;
use crate::kernels::dropout::Dropout;
use crate::kernels::norm::{Gradients, Kind, Norm, Saved};
use crate::kernels::timing::Part;
use candle_core::{DType, Tensor, bail};

/// The number of a kind in `norm.cu`.
fn number(kind: Kind) -> i32 {
    match kind {
        Kind::LayerNorm => 0,
        Kind::LayerNorm1p => 1,
        Kind::RmsNorm => 2,
    }
}

/// The normalized `x` in the norm's output format, and the moments `[tokens, 2]` in f32.
pub(in crate::kernels) fn forward(x: &Tensor, norm: &Norm<'_>) -> Result<(Tensor, Tensor)> {
    let (y, _, moments) = run(None, x, norm)?;
    Ok((y, moments))
}

/// The normalized `residual + dropout(x + bias)`, the sum in the residual's format, and the moments.
pub(in crate::kernels) fn add_forward(
    x: &Tensor,
    bias: Option<&Tensor>,
    dropout: Option<&Dropout<'_>>,
    residual: &Tensor,
    norm: &Norm<'_>,
) -> Result<(Tensor, Tensor, Tensor)> {
    let dtype = residual.dtype();
    let (x, bias) = (in_format(x, dtype)?, optional(bias, dtype)?);
    run(Some(&Update { x, bias, dropout }), residual, norm)
}

/// Refuses rows that norm.cu has no form for.
fn expect_width(width: usize) -> Result<()> {
    let even = width.is_multiple_of(8);
    let most = if even { 16_384 } else { 8_192 };
    if width > most {
        let odd = if even { "" } else { " where 8 does not divide them" };
        bail!("a norm over {width} numbers: a GPU takes at most {most}{odd}")
    }
    Ok(())
}

/// What is added to the residual stream.
struct Update<'a> {
    x: Tensor,
    bias: Option<Tensor>,
    dropout: Option<&'a Dropout<'a>>,
}

/// Output, normalized tensor (a new one where there is an update) and moments.
fn run(
    update: Option<&Update<'_>>,
    residual: &Tensor,
    norm: &Norm<'_>,
) -> Result<(Tensor, Tensor, Tensor)> {
    let ((tokens, width), dtype) = (residual.dims2()?, residual.dtype());
    expect_width(width)?;
    let context = of(residual)?;
    let dropout = update.and_then(|update| update.dropout);
    let mask = context.mask(dropout, tokens)?;
    let addresses = mask.as_ref().map(Mask::hold).transpose()?;
    let argument = mask.as_ref().zip(addresses.as_ref()).map(|(mask, held)| mask.argument(held));
    let (weight, bias) = (in_format(norm.weight, dtype)?, optional(norm.bias, dtype)?);
    let y = context.unfilled((tokens, width), dtype)?;
    let moments = context.unfilled((tokens, 2), DType::F32)?;
    let sum = match update {
        Some(_) => context.unfilled((tokens, width), dtype)?,
        None => residual.clone(),
    };
    let x = hold_optional(update.map(|update| &update.x))?;
    let x_bias = hold_optional(update.and_then(|update| update.bias.as_ref()))?;
    let (stream, total) = (hold(residual)?, hold(&sum)?);
    let (weight, bias) = (hold(&weight)?, hold_optional(bias.as_ref())?);
    let (out, pairs) = (hold(&y)?, hold(&moments)?);
    let work = context.work(Part::Norms)?;
    let code = ffi::sft_norm_forward(
        work.stream(),
        format(dtype)?,
        number(norm.kind),
        norm.epsilon as f32,
        address(x.as_ref()),
        address(x_bias.as_ref()),
        argument.as_ref(),
        stream.at(),
        total.at(),
        weight.at(),
        address(bias.as_ref()),
        out.at(),
        pairs.at(),
        size(tokens),
        size(width),
    );
    check("norm", code)?;
    drop((out, pairs, total));
    Ok((in_format(&y, norm.output)?, sum, moments))
}

/// The gradient of the input, in its format, plus `residual`.
pub(in crate::kernels) fn backward(
    saved: &Saved,
    norm: &Norm<'_>,
    gradients: &Gradients<'_>,
    dy: &Tensor,
    residual: Option<&Tensor>,
) -> Result<Tensor> {
    run_backward(saved, norm, gradients, (dy, residual), None)
}

/// [`backward`], and the forward's output again.
pub(in crate::kernels) fn backward_with_output(
    saved: &Saved,
    norm: &Norm<'_>,
    gradients: &Gradients<'_>,
    dy: &Tensor,
    residual: Option<&Tensor>,
) -> Result<(Tensor, Tensor)> {
    let y = of(dy)?.unfilled(saved.input().shape(), saved.input().dtype())?;
    let dx = run_backward(saved, norm, gradients, (dy, residual), Some(&y))?;
    Ok((dx, in_format(&y, norm.output)?))
}

fn run_backward(
    saved: &Saved,
    norm: &Norm<'_>,
    gradients: &Gradients<'_>,
    (dy, residual): (&Tensor, Option<&Tensor>),
    y: Option<&Tensor>,
) -> Result<Tensor> {
    let input = saved.input();
    let ((tokens, width), dtype) = (input.dims2()?, input.dtype());
    expect_f32("the norm weight's gradient", gradients.weight)?;
    for gradient in [gradients.bias, gradients.input_bias].into_iter().flatten() {
        expect_f32("a bias's gradient", gradient)?;
    }
    let context = of(dy)?;
    let (dy, residual) = (in_format(dy, dtype)?, optional(residual, dtype)?);
    let (weight, bias) = (in_format(norm.weight, dtype)?, optional(norm.bias, dtype)?);
    let dx = context.unfilled((tokens, width), dtype)?;
    let workspace =
        context.workspace(ffi::sft_norm_backward_workspace(size(tokens), size(width)))?;
    let (x, moments, weight, dy) =
        (hold(input)?, hold(saved.moments())?, hold(&weight)?, hold(&dy)?);
    let (bias, residual) = (hold_optional(bias.as_ref())?, hold_optional(residual.as_ref())?);
    let (out, again, workspace) = (hold(&dx)?, hold_optional(y)?, hold(&workspace)?);
    let d_weight = hold(gradients.weight)?;
    let (d_bias, d_sum) = (hold_optional(gradients.bias)?, hold_optional(gradients.input_bias)?);
    let work = context.work(Part::Norms)?;
    let code = ffi::sft_norm_backward(
        work.stream(),
        format(dtype)?,
        number(norm.kind),
        x.at(),
        moments.at(),
        weight.at(),
        address(bias.as_ref()),
        dy.at(),
        address(residual.as_ref()),
        out.at(),
        address(again.as_ref()),
        workspace.at(),
        d_weight.at(),
        address(d_bias.as_ref()),
        address(d_sum.as_ref()),
        size(tokens),
        size(width),
    );
    check("norm's gradient", code)?;
    drop(out);
    Ok(dx)
}
