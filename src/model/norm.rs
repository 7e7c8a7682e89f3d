//! A normalization of the hidden vector.

use super::weights::{ParameterView, Weights};
use crate::kernels::dropout::Dropout;
use crate::kernels::norm;
use crate::spec::architecture::{Architecture, Normalization};
use candle_core::{DType, Result, Tensor};

/// layernorm, layernorm1p or rmsnorm with its parameters.
#[derive(Debug)]
pub(super) struct Norm {
    kind: norm::Kind,
    epsilon: f64,
    weight: ParameterView,
    bias: Option<ParameterView>,
    output: DType,
}

impl Norm {
    pub(super) fn new(model: &Architecture, weights: &Weights, prefix: &str) -> Result<Norm> {
        let kind = match model.normalization {
            Normalization::Layernorm => norm::Kind::LayerNorm,
            Normalization::Layernorm1p => norm::Kind::LayerNorm1p,
            Normalization::Rmsnorm => norm::Kind::RmsNorm,
        };
        let weight = weights.expect(&format!("{prefix}.weight"))?;
        let bias = weights.view(&format!("{prefix}.bias"))?;
        let output = weights.formats().products;
        Ok(Norm { kind, epsilon: model.layernorm_epsilon, weight, bias, output })
    }

    /// The normalized `x` `[tokens, hidden]`, in the format of matrix products.
    pub(super) fn forward(&self, x: &Tensor) -> Result<(Tensor, norm::Saved)> {
        norm::forward(x, &self.kernel())
    }

    /// [`forward`](Norm::forward) of `residual + dropout(x + bias)`; the sum is the saved input.
    pub(super) fn add_forward(
        &self,
        x: &Tensor,
        bias: Option<&Tensor>,
        dropout: Option<&Dropout<'_>>,
        residual: &Tensor,
    ) -> Result<(Tensor, norm::Saved)> {
        norm::add_forward(x, bias, dropout, residual, &self.kernel())
    }

    /// The gradient of the input in its format, plus `residual` where the input also went on unnormalized.
    pub(super) fn backward(
        &self,
        saved: &norm::Saved,
        dy: &Tensor,
        residual: Option<&Tensor>,
    ) -> Result<Tensor> {
        norm::backward(saved, &self.kernel(), &self.gradients(None)?, dy, residual)
    }

    /// [`backward`](Norm::backward), and what the forward gave, again. Where a bias was added to the
    /// input, `input_bias` is its gradient, to which is added.
    pub(super) fn backward_with_output(
        &self,
        saved: &norm::Saved,
        dy: &Tensor,
        residual: Option<&Tensor>,
        input_bias: Option<&Tensor>,
    ) -> Result<(Tensor, Tensor)> {
        let gradients = self.gradients(input_bias)?;
        norm::backward_with_output(saved, &self.kernel(), &gradients, dy, residual)
    }

    fn gradients<'a>(&'a self, input_bias: Option<&'a Tensor>) -> Result<norm::Gradients<'a>> {
        let bias = self.bias.as_ref().map(ParameterView::gradient).transpose()?;
        Ok(norm::Gradients { weight: self.weight.gradient()?, bias, input_bias })
    }

    fn kernel(&self) -> norm::Norm<'_> {
        norm::Norm {
            kind: self.kind,
            epsilon: self.epsilon,
            weight: &self.weight.value,
            bias: self.bias.as_ref().map(|bias| &bias.value),
            output: self.output,
        }
    }
}
