//! Linear layers that are split over the tensor ranks (Shoeybi et al. 2019, "Megatron-LM", section 3).
//!
//! `y = x·wᵀ + b`, rows of `w` being outputs. The bias is added by whoever takes the product, since
//! every place where it matters fuses it with what follows (activation, residual);
//! [`ColumnParallel::forward_with_bias`] is for the one that does not.

use super::group::Pending;
use super::parameter_view::ParameterView;
use super::regions::TensorAxis;
use crate::kernels::activation::Kind;
use crate::kernels::linear;
use crate::kernels::linear_activation::{self, Activated, Next};
use candle_core::{Result, Tensor};

/// Each rank has its part of the outputs: rows of the weight, and their biases.
///
/// Takes the residual stream; gives all tokens.
#[derive(Debug)]
pub struct ColumnParallel {
    axis: TensorAxis,
    weight: ParameterView,
    bias: Option<ParameterView>,
}

/// Each rank has its part of the inputs: columns of the weight; the bias is every rank's.
///
/// Takes all tokens; gives the residual stream.
#[derive(Debug)]
pub struct RowParallel {
    axis: TensorAxis,
    weight: ParameterView,
    bias: Option<ParameterView>,
}

impl ColumnParallel {
    /// The layer with this rank's parameters.
    pub fn new(
        axis: &TensorAxis,
        weight: ParameterView,
        bias: Option<ParameterView>,
    ) -> ColumnParallel {
        ColumnParallel { axis: axis.clone(), weight, bias }
    }

    /// `x·wᵀ`: stream `[rows, inputs]` to `[tokens, outputs/ranks]`.
    pub fn forward(&self, x: &Tensor, tokens: usize) -> Result<Tensor> {
        linear::forward(&self.axis.gathered(x, tokens)?, &self.weight.value, None)
    }

    /// `x·wᵀ` and the activation of it and the bias.
    pub fn forward_activated(&self, kind: Kind, x: &Tensor, tokens: usize) -> Result<Activated> {
        let x = self.axis.gathered(x, tokens)?;
        linear_activation::forward(kind, &x, &self.weight.value, self.bias())
    }

    /// `x·wᵀ + b`.
    pub fn forward_with_bias(&self, x: &Tensor, tokens: usize) -> Result<Tensor> {
        linear::forward(&self.axis.gathered(x, tokens)?, &self.weight.value, self.bias())
    }

    /// This rank's part of the bias `[outputs/ranks]`.
    pub fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref().map(|bias| &bias.value)
    }

    /// Starts the gradient of `x`, stream `[rows, inputs]`, from `dy` `[tokens, outputs/ranks]`, the
    /// gradient after the bias.
    pub fn start_backward_input(&self, dy: &Tensor) -> Result<Pending> {
        self.axis.start_reduced(&linear::backward_input(dy, &self.weight.value)?)
    }

    /// What [`backward_weight`](ColumnParallel::backward_weight) takes of the stream `x`: all `tokens`.
    /// Of the stream each rank kept its rows only, so they are gathered again, if the weight learns.
    pub fn gathered(&self, x: &Tensor, tokens: usize) -> Result<Tensor> {
        if self.weight.learns { self.axis.gathered(x, tokens) } else { Ok(x.clone()) }
    }

    /// Adds the gradient of the weight, from `x` of all tokens and `dy` `[tokens, outputs/ranks]`.
    pub fn backward_weight(&self, x: &Tensor, dy: &Tensor) -> Result<()> {
        self.weight.accumulate_product(dy, x)
    }

    /// Adds the gradient of the bias, if there is one.
    pub fn backward_bias(&self, dy: &Tensor) -> Result<()> {
        match self.bias_gradient()? {
            Some(gradient) => linear::backward_bias(dy, gradient),
            None => Ok(()),
        }
    }

    /// This rank's part of the bias's gradient, to which backward passes add, if the bias learns.
    pub fn bias_gradient(&self) -> Result<Option<&Tensor>> {
        self.bias.as_ref().filter(|bias| bias.learns).map(ParameterView::gradient).transpose()
    }
}

impl RowParallel {
    /// The layer with this rank's parameters.
    pub fn new(
        axis: &TensorAxis,
        weight: ParameterView,
        bias: Option<ParameterView>,
    ) -> RowParallel {
        RowParallel { axis: axis.clone(), weight, bias }
    }

    /// `x·wᵀ`: `[tokens, inputs/ranks]` to stream `[rows, outputs]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.axis.reduced(&linear::forward(x, &self.weight.value, None)?)
    }

    /// The bias `[outputs]`.
    pub fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref().map(|bias| &bias.value)
    }

    /// The bias's gradient, to which backward passes add, if it learns; with the stream in rows, this
    /// rank's rows' share.
    pub fn bias_gradient(&self) -> Result<Option<&Tensor>> {
        self.bias.as_ref().filter(|bias| bias.learns).map(ParameterView::gradient).transpose()
    }

    /// Adds the gradient of the bias, if there is one: `dy` is the stream's gradient after it.
    pub fn backward_bias(&self, dy: &Tensor) -> Result<()> {
        match self.bias_gradient()? {
            Some(gradient) => linear::backward_bias(dy, gradient),
            None => Ok(()),
        }
    }

    /// What the backward takes of the stream's gradient `dy` after the bias: all `tokens`.
    pub fn gathered(&self, dy: &Tensor, tokens: usize) -> Result<Tensor> {
        self.axis.gathered(dy, tokens)
    }

    /// The gradient `[tokens, inputs/ranks]` of `x`, from `dy` `[tokens, outputs]`.
    pub fn backward_input(&self, dy: &Tensor) -> Result<Tensor> {
        linear::backward_input(dy, &self.weight.value)
    }

    /// Adds the gradient of the weight, from `x` `[tokens, inputs/ranks]` and `dy` `[tokens, outputs]`.
    pub fn backward_weight(&self, x: &Tensor, dy: &Tensor) -> Result<()> {
        self.weight.accumulate_product(dy, x)
    }

    /// [`backward_input`](RowParallel::backward_input) where `x` is the activation of `before + bias`,
    /// without more between: the gradient of `before`, whose sums are added to the bias's gradient.
    pub fn backward_activated(
        &self,
        kind: Kind,
        activated: &Activated,
        of: &ColumnParallel,
        dy: &Tensor,
    ) -> Result<Tensor> {
        let next = Next { gradient: dy, weight: &self.weight.value };
        linear_activation::backward(kind, &activated.before, of.bias(), next, of.bias_gradient()?)
    }
}
