//! The MLP of a block: up, activation, down.

use super::batch::Pass;
use super::linear::{column, row};
use super::weights::Weights;
use crate::kernels::dropout::{Channels, Dropout};
use crate::kernels::linear_activation::Activated;
use crate::kernels::{activation, dropout};
use crate::parallel::group::Pending;
use crate::parallel::linear::{ColumnParallel, RowParallel};
use crate::parallel::regions::TensorAxis;
use crate::spec::architecture::{Activation, Architecture};
use candle_core::{Result, Tensor};

/// The MLP.
#[derive(Debug)]
pub(super) struct Mlp {
    kind: activation::Kind,
    dropout: f64,
    /// `layers.3/mlp`: where its dropout is addressed.
    name: String,
    /// This rank's channels among those that dropout sees.
    channels: Channels,
    pub(super) up: ColumnParallel,
    pub(super) down: RowParallel,
}

/// What its backward needs: before bias and activation, and after activation and dropout.
#[derive(Debug)]
pub(super) struct Saved(Activated);

impl Saved {
    /// Everything held.
    pub(super) fn tensors(&self) -> [&Tensor; 2] {
        [&self.0.before, &self.0.output]
    }
}

impl Mlp {
    pub(super) fn new(
        model: &Architecture,
        axis: &TensorAxis,
        weights: &Weights,
        layer: usize,
    ) -> Result<Mlp> {
        let prefix = format!("encoder.layers.{layer}.mlp");
        let all = model.ffn_hidden_size;
        Ok(Mlp {
            kind: kind(model.activation),
            dropout: model.ffn_dropout,
            name: format!("layers.{layer}/mlp"),
            channels: Channels { first: axis.part(all).start, all },
            up: column(axis, weights, &format!("{prefix}.dense_h_to_4h"))?,
            down: row(axis, weights, &format!("{prefix}.dense_4h_to_h"))?,
        })
    }

    /// Stream to stream, without the last bias.
    pub(super) fn forward(&self, x: &Tensor, pass: &Pass<'_>) -> Result<(Tensor, Saved)> {
        let mut activated = self.up.forward_activated(self.kind, x, pass.tokens())?;
        if let Some(dropout) = self.dropout(pass) {
            activated.output = dropout::apply(&activated.output, &dropout)?;
        }
        let y = self.down.forward(&activated.output)?;
        Ok((y, Saved(activated)))
    }

    /// The gradients of `x`, which is on its way, and of the activation's input; adds that of the last
    /// weight. `dy` is the gradient after the last bias, whose own gradient the caller adds.
    pub(super) fn backward(
        &self,
        Saved(activated): &Saved,
        pass: &Pass<'_>,
        dy: &Tensor,
    ) -> Result<(Pending, Tensor)> {
        let dy = self.down.gathered(dy, pass.tokens())?;
        let d_inner = match self.dropout(pass) {
            None => self.down.backward_activated(self.kind, activated, &self.up, &dy)?,
            Some(dropout) => {
                let d_active = dropout::apply(&self.down.backward_input(&dy)?, &dropout)?;
                self.backward_activation(&activated.before, &d_active)?
            }
        };
        let dx = self.up.start_backward_input(&d_inner)?;
        self.down.backward_weight(&activated.output, &dy)?;
        Ok((dx, d_inner))
    }

    /// The gradient of the activation's input; adds that of the bias.
    fn backward_activation(&self, inner: &Tensor, d_active: &Tensor) -> Result<Tensor> {
        let bias = self.up.bias();
        match self.up.bias_gradient()? {
            Some(to) => activation::backward_with_bias(self.kind, inner, bias, d_active, to),
            None => activation::backward(self.kind, inner, bias, d_active),
        }
    }

    fn dropout<'a>(&self, pass: &Pass<'a>) -> Option<Dropout<'a>> {
        let dropout = pass.dropout(self.dropout, &self.name)?;
        Some(Dropout { channels: Some(self.channels), ..dropout })
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
