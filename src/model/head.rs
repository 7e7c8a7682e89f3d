//! Hidden vectors to logits and loss: the last norm and the output layer, at chosen places only.
//!
//! Places whose output nobody asks for go through neither, which changes no result: both work on
//! one token at a time.

use super::batch::Targets;
use super::norm::Norm;
use super::weights::Weights;
use crate::kernels::cross_entropy::Score;
use crate::kernels::embedding::{self, Lookup};
use crate::kernels::norm;
use crate::kernels::timing::{self, Part};
use crate::layout::parameters::{FINAL_LAYERNORM, OUTPUT_LAYER, WORD_EMBEDDINGS};
use crate::parallel::regions::TensorAxis;
use crate::parallel::vocabulary::Vocabulary;
use crate::spec::architecture::Architecture;
use candle_core::{Result, Tensor};

/// The head of the last pipeline stage.
#[derive(Debug)]
pub struct Head {
    axis: TensorAxis,
    norm: Norm,
    /// The output layer; the word embedding when they are tied.
    output: Vocabulary,
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
    pub(super) fn new(model: &Architecture, axis: &TensorAxis, weights: &Weights) -> Result<Head> {
        let tied = model.share_embeddings_and_output_weights;
        let output =
            weights.expect_for_products(if tied { WORD_EMBEDDINGS } else { OUTPUT_LAYER })?;
        Ok(Head {
            axis: axis.clone(),
            norm: Norm::new(model, weights, FINAL_LAYERNORM)?,
            output: Vocabulary::new(axis, output, model.vocab_size)?,
        })
    }

    /// Logits `[places, padded vocabulary]` at `places` of the stream `x` of `tokens` tokens.
    pub fn logits(&self, x: &Tensor, places: &[u32], tokens: usize) -> Result<Tensor> {
        let (normalized, _) = self.normalized(x, places, tokens)?;
        self.output.all_logits(&normalized)
    }

    /// Sum of the cross entropy over the targets, in nats, with what the backward needs.
    pub fn forward(
        &self,
        x: &Tensor,
        targets: &Targets<'_>,
        tokens: usize,
    ) -> Result<(f64, Saved)> {
        let _section = timing::section(Part::Head);
        let (normalized, norm) = self.normalized(x, targets.places, tokens)?;
        let Targets { labels, gradient_scale, .. } = *targets;
        let (loss, d_logits) = self.output.loss(&normalized, labels, gradient_scale)?;
        Ok((loss, Saved { norm, normalized, d_logits }))
    }

    /// The gradient of the stream of the loss sum; adds those of the parameters.
    pub fn backward(&self, saved: &Saved, targets: &Targets<'_>, tokens: usize) -> Result<Tensor> {
        let _section = timing::section(Part::Head);
        let d_normalized = self.output.loss_backward(&saved.normalized, &saved.d_logits)?;
        let d_rows = self.norm.backward(&saved.norm, &d_normalized, None)?;
        if are_all(targets.places, tokens) {
            return self.axis.scattered(&d_rows);
        }
        let width = d_rows.dim(1)?;
        let dx = Tensor::zeros((tokens, width), d_rows.dtype(), d_rows.device())?;
        embedding::backward(&Lookup { table: &dx, first: 0, ids: targets.places }, &d_rows)?;
        self.axis.scattered(&dx)
    }

    /// How well each target is predicted.
    pub fn scores(&self, x: &Tensor, targets: &Targets<'_>, tokens: usize) -> Result<Vec<Score>> {
        let (normalized, _) = self.normalized(x, targets.places, tokens)?;
        self.output.scores(&normalized, targets.labels)
    }

    /// The last norm's output at `places`, alike on all tensor ranks.
    fn normalized(
        &self,
        x: &Tensor,
        places: &[u32],
        tokens: usize,
    ) -> Result<(Tensor, norm::Saved)> {
        let x = self.axis.gathered(x, tokens)?;
        if are_all(places, tokens) {
            return self.norm.forward(&x);
        }
        self.norm.forward(&embedding::forward(&Lookup { table: &x, first: 0, ids: places }, None)?)
    }
}

/// Whether the places are those of all tokens, in their order.
fn are_all(places: &[u32], tokens: usize) -> bool {
    places.len() == tokens && places.iter().zip(0..).all(|(place, index)| *place == index)
}
