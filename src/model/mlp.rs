//! The MLP of a block: up, activation, down.

use super::batch::Pass;
use super::linear::Linear;
use super::weights::Weights;
use crate::kernels::{activation, dropout};
use crate::spec::architecture::{Activation, Architecture};
use candle_core::{Result, Tensor};

/// The MLP.
#[derive(Debug)]
pub(super) struct Mlp {
    kind: activation::Kind,
    dropout: f64,
    /// `layers.3/mlp`: where its dropout is addressed.
    name: String,
    up: Linear,
    pub(super) down: Linear,
}

/// What its backward needs.
#[derive(Debug)]
pub(super) struct Saved {
    input: Tensor,
    /// Before bias and activation.
    inner: Tensor,
    /// After activation and dropout.
    active: Tensor,
}

impl Saved {
    /// Everything held.
    pub(super) fn tensors(&self) -> [&Tensor; 3] {
        [&self.input, &self.inner, &self.active]
    }
}

impl Mlp {
    pub(super) fn new(model: &Architecture, weights: &Weights, layer: usize) -> Result<Mlp> {
        let prefix = format!("encoder.layers.{layer}.mlp");
        Ok(Mlp {
            kind: kind(model.activation),
            dropout: model.ffn_dropout,
            name: format!("layers.{layer}/mlp"),
            up: Linear::new(weights, &format!("{prefix}.dense_h_to_4h"))?,
            down: Linear::new(weights, &format!("{prefix}.dense_4h_to_h"))?,
        })
    }

    /// `[tokens, hidden]` to `[tokens, hidden]`, without the last bias.
    pub(super) fn forward(&self, x: Tensor, pass: &Pass<'_>) -> Result<(Tensor, Saved)> {
        let inner = self.up.forward(&x)?;
        let mut active = activation::forward(self.kind, &inner, self.up.bias())?;
        if let Some(dropout) = pass.dropout(self.dropout, &self.name) {
            active = dropout::apply(&active, &dropout)?;
        }
        let y = self.down.forward(&active)?;
        Ok((y, Saved { input: x, inner, active }))
    }

    /// The gradient of `x`; `dy` is the gradient after the last bias.
    pub(super) fn backward(&self, saved: &Saved, pass: &Pass<'_>, dy: &Tensor) -> Result<Tensor> {
        let mut d_active = self.down.backward(&saved.active, dy)?;
        if let Some(dropout) = pass.dropout(self.dropout, &self.name) {
            d_active = dropout::apply(&d_active, &dropout)?;
        }
        let d_inner = activation::backward(self.kind, &saved.inner, self.up.bias(), &d_active)?;
        self.up.backward(&saved.input, &d_inner)
    }
}

fn kind(activation: Activation) -> activation::Kind {
    match activation {
        Activation::Gelu => activation::Kind::GeluTanh,
        Activation::GeluErf => activation::Kind::GeluErf,
        Activation::Relu => activation::Kind::Relu,
        Activation::SquaredRelu => activation::Kind::SquaredRelu,
        Activation::Geglu => activation::Kind::Geglu,
        Activation::Swiglu => activation::Kind::Swiglu,
        Activation::Reglu => activation::Kind::Reglu,
    }
}
