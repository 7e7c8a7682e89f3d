//! A transformer block with its norms before its layers (pre-LN).

use super::attention::{self, Attention, Geometry};
use super::batch::Pass;
use super::mlp::{self, Mlp};
use super::norm::Norm;
use super::weights::Weights;
use crate::kernels::attention::{Cache, Continued};
use crate::kernels::dropout::{self, Dropout};
use crate::kernels::{norm, residual};
use crate::parallel::linear::RowParallel;
use crate::parallel::regions::TensorAxis;
use crate::spec::architecture::Architecture;
use candle_core::{DType, Result, Tensor};

/// `x1 = x + attention(norm(x))`, `y = x1 + mlp(norm(x1))`; with a parallel residual
/// `y = x1 + mlp(norm(x))`.
#[derive(Debug)]
pub struct Block {
    /// Number of the block in the whole model.
    pub(super) layer: usize,
    hidden_dropout: f64,
    parallel_residual: bool,
    input_norm: Norm,
    attention: Attention,
    post_attention_norm: Norm,
    mlp: Mlp,
    /// Number format of matrix products.
    products: DType,
}

/// What its backward needs.
#[derive(Debug)]
pub struct Saved {
    input_norm: norm::Saved,
    attention: attention::Saved,
    post_attention_norm: norm::Saved,
    mlp: mlp::Saved,
}

impl Saved {
    /// Everything held.
    pub(super) fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        let norms = self.input_norm.tensors().into_iter().chain(self.post_attention_norm.tensors());
        norms.chain(self.attention.tensors()).chain(self.mlp.tensors())
    }
}

impl Block {
    pub(super) fn new(
        (model, geometry): (&Architecture, &Geometry),
        axis: &TensorAxis,
        weights: &Weights,
        layer: usize,
    ) -> Result<Block> {
        let norm = |name: &str| {
            Norm::new(model, weights, &format!("encoder.layers.{layer}.{name}_layernorm"))
        };
        Ok(Block {
            layer,
            hidden_dropout: model.hidden_dropout,
            parallel_residual: model.use_parallel_residual,
            input_norm: norm("input")?,
            attention: Attention::new(geometry, axis, weights, layer)?,
            post_attention_norm: norm("post_attention")?,
            mlp: Mlp::new(model, axis, weights, layer)?,
            products: weights.formats().products,
        })
    }

    /// Stream to stream; `keeps_core` says whether the backward finds
    /// attention's core or computes it again.
    pub fn forward(
        &self,
        x: &Tensor,
        pass: &Pass<'_>,
        keeps_core: bool,
    ) -> Result<(Tensor, Saved)> {
        let (normalized, input_norm) = self.input_norm.forward(x)?;
        let (update, attention) = self.attention.forward(normalized, pass, keeps_core)?;
        let name = "attention_output";
        let (x1, normalized, post_attention_norm) = if self.parallel_residual {
            let x1 = self.add(&update, &self.attention.dense, x, (name, pass))?;
            let (normalized, saved) = self.post_attention_norm.forward(x)?;
            (x1, normalized, saved)
        } else {
            let (bias, dropout) = (self.attention.dense.bias(), self.dropout(name, pass));
            let (normalized, saved) =
                self.post_attention_norm.add_forward(&update, bias, dropout.as_ref(), x)?;
            (saved.input().clone(), normalized, saved)
        };
        let (update, mlp) = self.mlp.forward(normalized, pass)?;
        let y = self.add(&update, &self.mlp.down, &x1, ("mlp_output", pass))?;
        Ok((y, Saved { input_norm, attention, post_attention_norm, mlp }))
    }

    /// The gradient of `x`; adds those of the parameters.
    pub fn backward(&self, saved: &Saved, pass: &Pass<'_>, dy: &Tensor) -> Result<Tensor> {
        let update = self.masked(dy, "mlp_output", pass)?;
        let normalized = self.mlp.backward(&saved.mlp, pass, &update)?;
        // With the MLP's part; the attention's output is in it only when the MLP reads that.
        let through =
            self.post_attention_norm.backward(&saved.post_attention_norm, &normalized, Some(dy))?;
        let into_attention = if self.parallel_residual { dy } else { &through };
        let update = self.masked(into_attention, "attention_output", pass)?;
        let normalized = self.attention.backward(&saved.attention, pass, &update)?;
        self.input_norm.backward(&saved.input_norm, &normalized, Some(&through))
    }

    /// The forward of tokens that follow those in `cache`; nothing is dropped or saved.
    pub(super) fn continued(
        &self,
        x: &Tensor,
        pass: &Pass<'_>,
        cache: &Cache,
        continued: &Continued<'_>,
    ) -> Result<Tensor> {
        let (normalized, _) = self.input_norm.forward(x)?;
        let positions = pass.batch.positions;
        let update = self.attention.continued(&normalized, positions, cache, continued)?;
        let x1 = self.add(&update, &self.attention.dense, x, ("attention_output", pass))?;
        let mlp_input = if self.parallel_residual { x } else { &x1 };
        let (normalized, _) = self.post_attention_norm.forward(mlp_input)?;
        let (update, _) = self.mlp.forward(normalized, pass)?;
        self.add(&update, &self.mlp.down, &x1, ("mlp_output", pass))
    }

    /// `x + dropout(update + bias of last)`.
    fn add(
        &self,
        update: &Tensor,
        last: &RowParallel,
        x: &Tensor,
        (name, pass): (&str, &Pass<'_>),
    ) -> Result<Tensor> {
        residual::forward(update, last.bias(), self.dropout(name, pass).as_ref(), x)
    }

    /// The dropout of what is added to the residual stream at the place called `name`.
    fn dropout<'a>(&self, name: &str, pass: &'a Pass<'_>) -> Option<Dropout<'a>> {
        pass.stream_dropout(self.hidden_dropout, &format!("layers.{}/{name}", self.layer))
    }

    /// The gradient of what [`Block::add`] added, bias included, in the format of matrix products.
    fn masked(&self, dy: &Tensor, name: &str, pass: &Pass<'_>) -> Result<Tensor> {
        match self.dropout(name, pass) {
            Some(dropout) => dropout::apply(dy, &dropout)?.to_dtype(self.products),
            None => dy.to_dtype(self.products),
        }
    }
}
