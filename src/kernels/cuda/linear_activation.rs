//! A linear layer and the MLP's activation in one product of Hopper's tensor cores.

use super::activation::number;
use super::context::{format, of};
use super::ffi::{self, Address, LinearActivation};
use super::{address, check, expect_f32, hold, hold_optional, in_format, optional, size};
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
    let (x, weight, bias) = (hold(x)?, hold(&weight)?, hold_optional(bias.as_ref())?);
    let mut product = LinearActivation {
        format: format(dtype)?,
        kind: number(kind),
        input: x.at(),
        weight: weight.at(),
        bias: address(bias.as_ref()),
        before: Address::NONE,
        out: Address::NONE,
        tokens: size(tokens),
        depth: size(inputs),
        features: size(outputs),
    };
    // The question is about the device that this thread has bound.
    context.stream()?;
    if ffi::sft_linear_activation_takes(&product) == 0 {
        return Ok(None);
    }
    let before = context.unfilled((tokens, outputs), dtype)?;
    let output = context.unfilled((tokens, outputs), dtype)?;
    let (held_before, held_output) = (hold(&before)?, hold(&output)?);
    (product.before, product.out) = (held_before.at(), held_output.at());
    let work = context.work(Part::Products)?;
    let code = ffi::sft_linear_activation_forward(work.stream(), &product);
    check("linear with its activation", code)?;
    drop((held_before, held_output));
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
    let outputs = next.gradient.dim(1)?;
    if !may_take(before, kind) {
        return Ok(None);
    }
    expect_shape("the next layer's weight", next.weight, &[outputs, width])?;
    expect_shape("the next layer's gradient", next.gradient, &[tokens, outputs])?;
    if let Some(gradient) = bias_gradient {
        expect_shape("bias_gradient", gradient, &[width])?;
        expect_f32("the bias's gradient", gradient)?;
    }
    let context = of(before)?;
    let (weight, bias) = (in_format(next.weight, dtype)?, optional(bias, dtype)?);
    let dy = in_format(next.gradient, dtype)?;
    let (dy, weight, bias) = (hold(&dy)?, hold(&weight)?, hold_optional(bias.as_ref())?);
    let before = hold(before)?;
    let mut product = LinearActivation {
        format: format(dtype)?,
        kind: number(kind),
        input: dy.at(),
        weight: weight.at(),
        bias: address(bias.as_ref()),
        before: before.at(),
        out: Address::NONE,
        tokens: size(tokens),
        depth: size(outputs),
        features: size(width),
    };
    // The question is about the device that this thread has bound.
    context.stream()?;
    if ffi::sft_linear_activation_takes(&product) == 0 {
        return Ok(None);
    }
    let dx = context.unfilled((tokens, width), dtype)?;
    let count = ffi::sft_column_workspace(product.tokens, product.features);
    let workspace = context.workspace(count)?;
    let (out, workspace, gradient) = (hold(&dx)?, hold(&workspace)?, hold_optional(bias_gradient)?);
    product.out = out.at();
    let work = context.work(Part::Products)?;
    let code = ffi::sft_linear_activation_backward(
        work.stream(),
        &product,
        workspace.at(),
        address(gradient.as_ref()),
    );
    check("linear with its activation, backward", code)?;
    drop(out);
    Ok(Some(dx))
}

/// Whether there may be a kernel, before anything is converted for it.
fn may_take(x: &Tensor, kind: Kind) -> bool {
    x.device().is_cuda() && x.dtype() != DType::F32 && !kind.is_gated()
}
