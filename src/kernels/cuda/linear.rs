//! Linear layers through cuBLASLt; gradients of weights are added in the product.

use super::context::{format, of};
use super::{address, check, expect_f32, ffi, hold, hold_optional, in_format, optional, size};
use crate::kernels::Result;
use crate::kernels::carrier::expect_shape;
use crate::kernels::linear::Onto;
use crate::kernels::timing::Part;
use candle_core::Tensor;

/// `x·wᵀ + bias` in `x`'s format.
pub(in crate::kernels) fn forward(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
) -> Result<Tensor> {
    let (tokens, inputs) = x.dims2()?;
    let (outputs, dtype) = (weight.dim(0)?, x.dtype());
    expect_shape("weight", weight, &[outputs, inputs])?;
    if let Some(bias) = bias {
        expect_shape("bias", bias, &[outputs])?;
    }
    let context = of(x)?;
    let (weight, bias) = (in_format(weight, dtype)?, optional(bias, dtype)?);
    let y = context.unfilled((tokens, outputs), dtype)?;
    let (x, weight, out) = (hold(x)?, hold(&weight)?, hold(&y)?);
    let bias = hold_optional(bias.as_ref())?;
    let work = context.work(Part::Products)?;
    let code = ffi::libraries::sft_linear_forward(
        context.gemm().handle(),
        work.stream(),
        format(dtype)?,
        x.at(),
        weight.at(),
        address(bias.as_ref()),
        out.at(),
        ffi::Address::NONE,
        size(tokens),
        size(inputs),
        size(outputs),
    );
    check("linear", code)?;
    drop(out);
    Ok(y)
}

/// `dy·w` in `dy`'s format.
pub(in crate::kernels) fn backward_input(dy: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let (tokens, outputs) = dy.dims2()?;
    let (inputs, dtype) = (weight.dim(1)?, dy.dtype());
    expect_shape("weight", weight, &[outputs, inputs])?;
    let context = of(dy)?;
    let weight = in_format(weight, dtype)?;
    let dx = context.unfilled((tokens, inputs), dtype)?;
    let (dy, weight, out) = (hold(dy)?, hold(&weight)?, hold(&dx)?);
    let work = context.work(Part::Products)?;
    let code = ffi::libraries::sft_linear_backward_input(
        context.gemm().handle(),
        work.stream(),
        format(dtype)?,
        dy.at(),
        weight.at(),
        out.at(),
        size(tokens),
        size(inputs),
        size(outputs),
    );
    check("linear's input gradient", code)?;
    drop(out);
    Ok(dx)
}

/// `weight_gradient = dyᵀ·x`, or `+=`.
pub(in crate::kernels) fn backward_weight(
    dy: &Tensor,
    x: &Tensor,
    weight_gradient: &Tensor,
    onto: Onto,
) -> Result<()> {
    let (tokens, outputs) = dy.dims2()?;
    let inputs = x.dim(1)?;
    expect_shape("x", x, &[tokens, inputs])?;
    expect_shape("weight_gradient", weight_gradient, &[outputs, inputs])?;
    expect_f32("the weight's gradient", weight_gradient)?;
    if tokens == 0 && onto == Onto::Nothing {
        return super::reduce::clear(weight_gradient);
    }
    let (context, dtype) = (of(dy)?, x.dtype());
    let dy = in_format(dy, dtype)?;
    let (dy, x, gradient) = (hold(&dy)?, hold(x)?, hold(weight_gradient)?);
    let work = context.work(Part::Products)?;
    let code = ffi::libraries::sft_linear_backward_weight(
        context.gemm().handle(),
        work.stream(),
        format(dtype)?,
        dy.at(),
        x.at(),
        gradient.at(),
        i32::from(onto == Onto::Sum),
        size(tokens),
        size(inputs),
        size(outputs),
    );
    check("linear's weight gradient", code)
}

/// `bias_gradient += Σ rows of dy`.
pub(in crate::kernels) fn backward_bias(dy: &Tensor, bias_gradient: &Tensor) -> Result<()> {
    let (tokens, outputs) = dy.dims2()?;
    expect_shape("bias_gradient", bias_gradient, &[outputs])?;
    expect_f32("the bias's gradient", bias_gradient)?;
    let context = of(dy)?;
    let (rows, width) = (size(tokens), size(outputs));
    let workspace = context.workspace(ffi::sft_column_workspace(rows, width))?;
    let (values, workspace, gradient) = (hold(dy)?, hold(&workspace)?, hold(bias_gradient)?);
    let work = context.work(Part::Norms)?;
    let code = ffi::sft_column_sums(
        work.stream(),
        format(dy.dtype())?,
        values.at(),
        rows,
        width,
        workspace.at(),
        gradient.at(),
    );
    check("column sums", code)
}
