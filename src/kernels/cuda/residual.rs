//! The residual sum and dropout.

use super::context::{Mask, format, of};
use super::{address, check, ffi, hold, hold_optional, in_format, optional, size};
use crate::kernels::Result;
use crate::kernels::dropout::Dropout;
use crate::kernels::timing::Part;
use candle_core::Tensor;

/// `residual + dropout(x + bias)` in the residual's format, or in `x`'s without one.
pub(in crate::kernels) fn forward(
    x: &Tensor,
    bias: Option<&Tensor>,
    dropout: Option<&Dropout<'_>>,
    residual: Option<&Tensor>,
) -> Result<Tensor> {
    let (tokens, width) = x.dims2()?;
    let dtype = residual.unwrap_or(x).dtype();
    let context = of(x)?;
    let mask = context.mask(dropout, tokens)?;
    let (x, bias) = (in_format(x, dtype)?, optional(bias, dtype)?);
    let y = context.unfilled((tokens, width), dtype)?;
    let (x, bias, residual) = (hold(&x)?, hold_optional(bias.as_ref())?, hold_optional(residual)?);
    let addresses = mask.as_ref().map(Mask::hold).transpose()?;
    let dropout = mask.as_ref().zip(addresses.as_ref()).map(|(mask, held)| mask.argument(held));
    let out = hold(&y)?;
    let work = context.work(Part::Norms)?;
    let code = ffi::sft_residual_forward(
        work.stream(),
        format(dtype)?,
        x.at(),
        address(bias.as_ref()),
        dropout.as_ref(),
        address(residual.as_ref()),
        out.at(),
        size(tokens),
        size(width),
    );
    check("residual sum", code)?;
    drop(out);
    Ok(y)
}
