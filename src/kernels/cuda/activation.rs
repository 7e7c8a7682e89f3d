//! Activations of the MLP.

use super::context::{format, of};
use super::{address, check, expect_f32, ffi, hold, hold_optional, in_format, optional, size};
use crate::kernels::Result;
use crate::kernels::activation::Kind;
use crate::kernels::carrier::expect_shape;
use crate::kernels::timing::Part;
use candle_core::Tensor;

/// The number of a kind in `activation.cu`.
pub(super) fn number(kind: Kind) -> i32 {
    match kind {
        Kind::GeluTanh => 0,
        Kind::GeluErf => 1,
        Kind::Relu => 2,
        Kind::SquaredRelu => 3,
        Kind::Geglu => 4,
        Kind::Swiglu => 5,
        Kind::Reglu => 6,
    }
}

/// The activation of `x + bias`, `out_width` wide.
pub(in crate::kernels) fn forward(
    kind: Kind,
    x: &Tensor,
    bias: Option<&Tensor>,
    out_width: usize,
) -> Result<Tensor> {
    let (tokens, dtype) = (x.dim(0)?, x.dtype());
    let context = of(x)?;
    let bias = optional(bias, dtype)?;
    let y = context.unfilled((tokens, out_width), dtype)?;
    let (x, bias, out) = (hold(x)?, hold_optional(bias.as_ref())?, hold(&y)?);
    let work = context.work(Part::Activation)?;
    let code = ffi::sft_activation_forward(
        work.stream(),
        format(dtype)?,
        number(kind),
        x.at(),
        address(bias.as_ref()),
        out.at(),
        size(tokens),
        size(out_width),
    );
    check("activation", code)?;
    drop(out);
    Ok(y)
}

/// The gradient of `x`; its column sums are added to `bias_gradient`, if given, on the way.
pub(in crate::kernels) fn backward(
    kind: Kind,
    x: &Tensor,
    bias: Option<&Tensor>,
    dy: &Tensor,
    bias_gradient: Option<&Tensor>,
) -> Result<Tensor> {
    let ((tokens, width), dtype, out_width) = (x.dims2()?, x.dtype(), dy.dim(1)?);
    if let Some(gradient) = bias_gradient {
        expect_shape("bias_gradient", gradient, &[width])?;
        expect_f32("the bias's gradient", gradient)?;
    }
    let context = of(x)?;
    let (bias, dy) = (optional(bias, dtype)?, in_format(dy, dtype)?);
    let dx = context.unfilled((tokens, width), dtype)?;
    let workspace = context.workspace(ffi::sft_column_workspace(size(tokens), size(width)))?;
    let (x, bias, dy, out) = (hold(x)?, hold_optional(bias.as_ref())?, hold(&dy)?, hold(&dx)?);
    let (workspace, gradient) = (hold(&workspace)?, hold_optional(bias_gradient)?);
    let work = context.work(Part::Activation)?;
    let code = ffi::sft_activation_backward(
        work.stream(),
        format(dtype)?,
        number(kind),
        x.at(),
        address(bias.as_ref()),
        dy.at(),
        out.at(),
        workspace.at(),
        address(gradient.as_ref()),
        size(tokens),
        size(out_width),
    );
    check("activation's gradient", code)?;
    drop(out);
    Ok(dx)
}
