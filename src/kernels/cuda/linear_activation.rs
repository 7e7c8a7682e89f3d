//! A linear layer and the MLP's activation in one product of Hopper's tensor cores.

use super::activation::number;
use super::context::{format, of};
use super::memory::Held;
use super::{address, check, expect_f32, ffi, hold, hold_optional, in_format, optional};
use crate::kernels::Result;
use crate::kernels::activation::Kind;
use crate::kernels::carrier::expect_shape;
use crate::kernels::linear_activation::{Activated, Next};
use crate::kernels::timing::Part;
use candle_core::{DType, Tensor};

/// See the CPU's; none where there is no kernel for this device, format, kind or shape.
pub(in crate::kernels) fn forward(
    kind: Kind,
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
) -> Result<Option<Activated>> {
    let ((tokens, inputs), outputs, dtype) = (x.dims2()?, weight.dim(0)?, x.dtype());
    if !may_take(x, kind) {
        return Ok(None);
    }
    expect_shape("weight", weight, &[outputs, inputs])?;
    if let Some(bias) = bias {
        expect_shape("bias", bias, &[outputs])?;
    }
    let context = of(x)?;
    let (weight, bias) = (in_format(weight, dtype)?, optional(bias, dtype)?);
    let (weight, bias) = (hold(&weight)?, hold_optional(bias.as_ref())?);
    let sizes = [tokens as i64, inputs as i64, outputs as i64];
    if !takes(dtype, kind, &weight, bias.as_ref(), sizes)? {
        return Ok(None);
    }
    let before = context.unfilled((tokens, outputs), dtype)?;
    let output = context.unfilled((tokens, outputs), dtype)?;
    let (x, to, out) = (hold(x)?, hold(&before)?, hold(&output)?);
    let work = context.work(Part::Products)?;
    let [tokens, depth, features] = sizes;
    let code = ffi::sft_linear_activation_forward(
        work.stream(),
        format(dtype)?,
        number(kind),
        x.at(),
        weight.at(),
        address(bias.as_ref()),
        to.at(),
        out.at(),
        tokens,
        depth,
        features,
    );
    check("linear with its activation", code)?;
    drop((to, out));
    Ok(Some(Activated { before, output }))
}

/// See the CPU's; none where there is no kernel for this device, format, kind or shape.
pub(in crate::kernels) fn backward(
    kind: Kind,
    before: &Tensor,
    bias: Option<&Tensor>,
    next: Next<'_>,
    bias_gradient: Option<&Tensor>,
) -> Result<Option<Tensor>> {
    let ((tokens, width), dtype) = (before.dims2()?, before.dtype());
    let inner = next.gradient.dim(1)?;
    if !may_take(before, kind) {
        return Ok(None);
    }
    expect_shape("the next layer's weight", next.weight, &[inner, width])?;
    expect_shape("the next layer's gradient", next.gradient, &[tokens, inner])?;
    if let Some(gradient) = bias_gradient {
        expect_shape("bias_gradient", gradient, &[width])?;
        expect_f32("the bias's gradient", gradient)?;
    }
    let context = of(before)?;
    let (weight, bias) = (in_format(next.weight, dtype)?, optional(bias, dtype)?);
    let (weight, bias) = (hold(&weight)?, hold_optional(bias.as_ref())?);
    let sizes = [tokens as i64, inner as i64, width as i64];
    if !takes(dtype, kind, &weight, bias.as_ref(), sizes)? {
        return Ok(None);
    }
    let dy = in_format(next.gradient, dtype)?;
    let dx = context.unfilled((tokens, width), dtype)?;
    let [tokens, depth, features] = sizes;
    let workspace = context.workspace(ffi::sft_column_workspace(tokens, features))?;
    let (before, dy, out) = (hold(before)?, hold(&dy)?, hold(&dx)?);
    let (workspace, gradient) = (hold(&workspace)?, hold_optional(bias_gradient)?);
    let work = context.work(Part::Products)?;
    let code = ffi::sft_linear_activation_backward(
        work.stream(),
        format(dtype)?,
        number(kind),
        dy.at(),
        weight.at(),
        before.at(),
        address(bias.as_ref()),
        out.at(),
        workspace.at(),
        address(gradient.as_ref()),
        tokens,
        depth,
        features,
    );
    check("linear with its activation, backward", code)?;
    drop(out);
    Ok(Some(dx))
}

/// Whether there may be a kernel, before anything is converted for it.
fn may_take(x: &Tensor, kind: Kind) -> bool {
    x.device().is_cuda() && x.dtype() != DType::F32 && !kind.is_gated()
}

/// Whether there is a kernel.
fn takes(
    dtype: DType,
    kind: Kind,
    weight: &Held<'_>,
    bias: Option<&Held<'_>>,
    [tokens, depth, features]: [i64; 3],
) -> Result<bool> {
    let (format, kind) = (format(dtype)?, number(kind));
    let (weight, bias) = (weight.at(), address(bias));
    Ok(ffi::sft_linear_activation_takes(format, kind, weight, bias, tokens, depth, features) != 0)
}
