//! Hidden vectors to logits and loss: the last norm and the output layer, at chosen places only.
//!
//! Places whose output nobody asks for go through neither, which changes no result: both work on
//! one token at a time.

use super::batch::Targets;
use super::norm::Norm;
use super::weights::{Slot, Weights};
use crate::kernels::cross_entropy::{self, Score};
use crate::kernels::embedding::{self, Lookup};
use crate::kernels::{linear, norm};
use crate::layout::parameters::{FINAL_LAYERNORM, OUTPUT_LAYER, WORD_EMBEDDINGS};
use crate::spec::architecture::Architecture;
use candle_core::{Result, Tensor};

/// The head of the last pipeline stage.
#[derive(Debug)]
pub struct Head {
    norm: Norm,
    /// `[padded vocabulary, hidden]`; the word embedding when they are tied.
    output: Slot,
    vocab_size: usize,
}

/// What its backward needs.
#[derive(Debug)]
pub struct Saved {
    norm: norm::Saved,
    normalized: Tensor,
    d_logits: Tensor,
}

impl Saved {
    /// Everything held.
    pub(super) fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        self.norm.tensors().into_iter().chain([&self.normalized, &self.d_logits])
    }
}

impl Head {
    pub(super) fn new(model: &Architecture, weights: &Weights) -> Result<Head> {
        let tied = model.share_embeddings_and_output_weights;
        Ok(Head {
            norm: Norm::new(model, weights, FINAL_LAYERNORM)?,
            output: weights.expect_for_products(if tied {
                WORD_EMBEDDINGS
            } else {
                OUTPUT_LAYER
            })?,
            vocab_size: model.vocab_size,
        })
    }

    /// Logits `[places, padded vocabulary]` at `places` of `x` `[tokens, hidden]`.
    pub fn logits(&self, x: &Tensor, places: &[u32]) -> Result<Tensor> {
        let (normalized, _) = self.norm.forward(&rows(x, places)?)?;
        linear::forward(&normalized, &self.output.value, None)
    }

    /// Sum of the cross entropy over the targets, in nats, with what the backward needs.
    pub fn forward(&self, x: &Tensor, targets: &Targets<'_>) -> Result<(f64, Saved)> {
        let (normalized, norm) = self.norm.forward(&rows(x, targets.places)?)?;
        let logits = linear::forward(&normalized, &self.output.value, None)?;
        let Targets { labels, gradient_scale, .. } = *targets;
        let loss =
            cross_entropy::forward_backward(&logits, labels, self.vocab_size, gradient_scale)?;
        Ok((loss, Saved { norm, normalized, d_logits: logits }))
    }

    /// The gradient of `x` `[tokens, hidden]` of the loss sum; adds those of the parameters.
    pub fn backward(&self, saved: &Saved, targets: &Targets<'_>, tokens: usize) -> Result<Tensor> {
        linear::backward_weight(&saved.d_logits, &saved.normalized, &self.output.gradient)?;
        let d_normalized = linear::backward_input(&saved.d_logits, &self.output.value)?;
        let d_rows = self.norm.backward(&saved.norm, &d_normalized, None)?;
        let width = d_rows.dim(1)?;
        let dx = Tensor::zeros((tokens, width), d_rows.dtype(), d_rows.device())?;
        embedding::backward(&Lookup { table: &dx, first: 0, ids: targets.places }, &d_rows)?;
        Ok(dx)
    }

    /// How well each target is predicted.
    pub fn scores(&self, x: &Tensor, targets: &Targets<'_>) -> Result<Vec<Score>> {
        let logits = self.logits(x, targets.places)?;
        cross_entropy::scores(&logits, targets.labels, self.vocab_size)
    }
}

/// Rows `places` of `x`.
fn rows(x: &Tensor, places: &[u32]) -> Result<Tensor> {
    embedding::forward(&Lookup { table: x, first: 0, ids: places }, None)
}
