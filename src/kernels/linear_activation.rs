//! A linear layer and the MLP's activation in one product where a GPU has it, forward and backward.

use super::Result;
use super::activation::{self, Kind};
use super::linear;
use candle_core::Tensor;

/// What the forward of a linear layer with an activation gives.
#[derive(Debug)]
pub struct Activated {
    /// Before bias and activation, `[tokens, outputs]`; the backward takes it.
    pub before: Tensor,
    /// After them, and whatever the caller has done to it since; half as wide if the activation is gated.
    pub output: Tensor,
}

/// `before = x·wᵀ` and the activation of `before + bias`: `x` is `[tokens, inputs]`, `weight`
/// `[outputs, inputs]`, `bias` `[outputs]`.
pub fn forward(
    kind: Kind,
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
) -> Result<Activated> {
    #[cfg(feature = "cuda")]
    if let Some(activated) = super::cuda::linear_activation::forward(kind, x, weight, bias)? {
        return Ok(activated);
    }
    let before = linear::forward(x, weight, None)?;
    let output = activation::forward(kind, &before, bias)?;
    Ok(Activated { before, output })
}

/// The layer after the activation, whose weight `[outputs, width]` takes what the activation gives.
#[derive(Clone, Copy, Debug)]
pub struct Next<'a> {
    /// The gradient of its output `[tokens, outputs]`.
    pub gradient: &'a Tensor,
    /// Its weight.
    pub weight: &'a Tensor,
}

/// The gradient of `before` `[tokens, width]`, whose column sums are added to the bias's gradient `[width]` if
/// that is given (`width` is twice the next layer's if the activation is gated):
/// `(next.gradient·next.weight) · activation'(before + bias)`.
pub fn backward(
    kind: Kind,
    before: &Tensor,
    bias: Option<&Tensor>,
    next: Next<'_>,
    bias_gradient: Option<&Tensor>,
) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if let Some(gradient) =
        super::cuda::linear_activation::backward(kind, before, bias, next, bias_gradient)?
    {
        return Ok(gradient);
    }
    let dy = linear::backward_input(next.gradient, next.weight)?;
    match bias_gradient {
        Some(to) => activation::backward_with_bias(kind, before, bias, &dy, to),
        None => activation::backward(kind, before, bias, &dy),
    }
}
