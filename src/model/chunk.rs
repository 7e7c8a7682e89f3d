//! A model chunk: consecutive blocks, the embedding before the first, the head after the last.
//!
//! Chunks follow each other over the pipeline's stages: each takes the residual stream that the one
//! before gives, and hands its gradient back.

use super::activation_meter::ActivationMeter;
use super::batch::{Pass, Targets};
use super::embedding::Embedding;
use super::head::Head;
use super::trunk::{self, Milestone, Reached, Trunk};
use crate::kernels::cross_entropy::Score;
use crate::layout::parameters::Place;
use candle_core::{Result, Tensor, bail};

/// A part of the model.
#[derive(Debug)]
pub struct Chunk {
    pub(super) embedding: Option<Embedding>,
    pub(super) trunk: Trunk,
    pub(super) head: Option<Head>,
    pub(super) meter: ActivationMeter,
}

/// What a chunk's forward gives.
#[derive(Debug)]
pub enum Output {
    /// The residual stream, for the next chunk.
    Stream(Tensor),
    /// The last chunk's: the loss sum over the targets, in nats.
    Loss(f64),
}

/// What its backward needs.
#[derive(Debug)]
pub struct Saved {
    trunk: trunk::Saved,
    /// The gradient of the last block's output, where the head follows: its backward runs at once,
    /// so that no logits are kept.
    d_output: Option<Tensor>,
}

impl Chunk {
    /// Whether it begins the model, and so takes no stream.
    pub fn is_first(&self) -> bool {
        self.embedding.is_some()
    }

    /// Whether it ends the model, and so gives the loss.
    pub fn is_last(&self) -> bool {
        self.head.is_some()
    }

    /// Training's forward. `x` is the stream of the chunk before; `targets` are looked at by the
    /// last chunk, whose head's gradients are added already here.
    pub fn forward(
        &self,
        x: Option<Tensor>,
        pass: &Pass<'_>,
        targets: &Targets<'_>,
    ) -> Result<(Output, Saved)> {
        let (x, trunk) = self.trunk.forward(self.input(x, pass)?, pass)?;
        let Some(head) = &self.head else {
            return Ok((Output::Stream(x), Saved { trunk, d_output: None }));
        };
        let (loss, kept) = head.forward(&x, targets, pass.tokens())?;
        drop(x);
        let _held = self.meter.hold(kept.tensors());
        let d_output = head.backward(&kept, targets, pass.tokens())?;
        Ok((Output::Loss(loss), Saved { trunk, d_output: Some(d_output) }))
    }

    /// Adds the gradients; gives the gradient of the stream that came in, unless the chunk is the
    /// first. `dy` is that of the stream that went out, none for the last chunk.
    pub fn backward(
        &self,
        saved: Saved,
        pass: &Pass<'_>,
        dy: Option<Tensor>,
        reached: &mut Reached<'_>,
    ) -> Result<Option<Tensor>> {
        let Some(dy) = saved.d_output.or(dy) else {
            bail!("the backward of a chunk in the middle takes the gradient of its output")
        };
        if self.is_last() {
            reached(Milestone::Finished(Place::Head))?;
        }
        let dx = self.trunk.backward(saved.trunk, pass, dy, reached)?;
        let Some(embedding) = &self.embedding else { return Ok(Some(dx)) };
        embedding.backward(pass, &dx)?;
        reached(Milestone::Finished(Place::Embedding))?;
        Ok(None)
    }

    /// The stream after the last block; nothing is kept.
    pub fn stream(&self, x: Option<Tensor>, pass: &Pass<'_>) -> Result<Tensor> {
        self.trunk.output(self.input(x, pass)?, pass)
    }

    /// How well each target is predicted, from the [`stream`](Chunk::stream) of the last chunk.
    pub fn scores(
        &self,
        stream: &Tensor,
        pass: &Pass<'_>,
        targets: &Targets<'_>,
    ) -> Result<Vec<Score>> {
        self.head()?.scores(stream, targets, pass.tokens())
    }

    /// Logits `[places, padded vocabulary]` after the tokens at `places`, from the
    /// [`stream`](Chunk::stream) of the last chunk.
    pub fn logits(&self, stream: &Tensor, pass: &Pass<'_>, places: &[u32]) -> Result<Tensor> {
        self.head()?.logits(stream, places, pass.tokens())
    }

    pub(super) fn input(&self, x: Option<Tensor>, pass: &Pass<'_>) -> Result<Tensor> {
        match (&self.embedding, x) {
            (Some(embedding), None) => embedding.forward(pass),
            (None, Some(x)) => Ok(x),
            (Some(_), Some(_)) => bail!("the first chunk takes no stream"),
            (None, None) => bail!("a chunk after the first takes the stream of the one before"),
        }
    }

    fn head(&self) -> Result<&Head> {
        match &self.head {
            Some(head) => Ok(head),
            None => bail!("only the last chunk has the output layer"),
        }
    }
}
