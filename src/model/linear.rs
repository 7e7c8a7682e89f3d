//! A linear layer.

use super::weights::{Slot, Weights};
use crate::kernels::linear;
use candle_core::{Result, Tensor};

/// `y = x·wᵀ + b`.
///
/// The bias is added by whoever takes the product, since every place where it matters fuses it with
/// what follows (activation, residual); [`Linear::forward_with_bias`] is for the one that does not.
#[derive(Debug)]
pub(super) struct Linear {
    weight: Slot,
    bias: Option<Slot>,
}

impl Linear {
    pub(super) fn new(weights: &Weights, prefix: &str) -> Result<Linear> {
        let weight = weights.expect_for_products(&format!("{prefix}.weight"))?;
        Ok(Linear { weight, bias: weights.slot(&format!("{prefix}.bias"))? })
    }

    /// `x·wᵀ`: `[tokens, inputs]` to `[tokens, outputs]`.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        linear::forward(x, &self.weight.value, None)
    }

    /// `x·wᵀ + b`.
    pub(super) fn forward_with_bias(&self, x: &Tensor) -> Result<Tensor> {
        linear::forward(x, &self.weight.value, self.bias())
    }

    /// The bias `[outputs]`.
    pub(super) fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref().map(|bias| &bias.value)
    }

    /// The gradient of `x`; adds those of weight and bias. `dy` is the gradient after the bias.
    pub(super) fn backward(&self, x: &Tensor, dy: &Tensor) -> Result<Tensor> {
        linear::backward_weight(dy, x, &self.weight.gradient)?;
        if let Some(bias) = &self.bias {
            linear::backward_bias(dy, &bias.gradient)?;
        }
        linear::backward_input(dy, &self.weight.value)
    }
}
