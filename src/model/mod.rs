//! The GPT, written once for any layout.
//!
//! Every layer has a forward that gives what its backward needs, and a backward that gives the
//! gradient of its input and adds those of its parameters to [`weights::Weights::gradients`].
//! Hidden tensors are `[tokens, hidden]`, the tokens of a few sequences end to end ([`batch`]).

mod attention;
pub mod batch;
pub mod block;
pub mod decoder;
pub mod embedding;
pub mod formats;
pub mod head;
pub mod kept;
mod linear;
mod mlp;
mod norm;
pub mod trunk;
pub mod weights;

use crate::kernels::cross_entropy::Score;
use crate::spec::architecture::Architecture;
use crate::spec::optimization::Recompute;
use attention::Geometry;
use batch::{Batch, Noise, Pass, Targets};
use block::Block;
use candle_core::{Result, Tensor};
use embedding::Embedding;
use head::Head;
use kept::Meter;
use trunk::Trunk;
use weights::Weights;

/// A GPT.
#[derive(Debug)]
pub struct Model {
    architecture: Architecture,
    weights: Weights,
    geometry: Geometry,
    embedding: Embedding,
    trunk: Trunk,
    head: Head,
    meter: Meter,
}

impl Model {
    /// The model with these weights, which are its own shape's.
    pub fn new(architecture: &Architecture, weights: Weights) -> Result<Model> {
        let geometry = Geometry::new(architecture)?;
        let block = |layer| Block::new(architecture, &geometry, &weights, layer);
        let blocks = (0..architecture.num_layers).map(block).collect::<Result<_>>()?;
        let meter = Meter::default();
        Ok(Model {
            embedding: Embedding::new(architecture, &weights)?,
            trunk: Trunk::new(blocks, meter.clone()),
            head: Head::new(architecture, &weights)?,
            architecture: architecture.clone(),
            geometry,
            weights,
            meter,
        })
    }

    /// The same model with this recomputation; without it nothing is computed again.
    #[must_use]
    pub fn with_recompute(mut self, recompute: Recompute) -> Model {
        self.trunk.set_recompute(recompute);
        self
    }

    /// Counts what forward passes keep for their backward.
    pub fn meter(&self) -> &Meter {
        &self.meter
    }

    /// The shape.
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// Parameters and gradients.
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// Training's forward and backward: gives the sum of the loss over the targets, in nats, and
    /// adds the gradients of that sum.
    pub fn learn(&self, batch: &Batch<'_>, targets: &Targets<'_>, noise: Noise) -> Result<f64> {
        let pass = Pass { batch: *batch, noise: Some(noise) };
        let x = self.embedding.forward(&pass)?;
        let (x, saved) = self.trunk.forward(x, &pass)?;
        let (loss, dx) = self.loss(x, targets)?;
        let dx = self.trunk.backward(saved, &pass, dx)?;
        self.embedding.backward(&pass, &dx)?;
        Ok(loss)
    }

    /// The loss sum over the targets and its gradient by the last block's output `x`.
    fn loss(&self, x: Tensor, targets: &Targets<'_>) -> Result<(f64, Tensor)> {
        let (tokens, _) = x.dims2()?;
        let (loss, saved) = self.head.forward(&x, targets)?;
        drop(x);
        let _held = self.meter.hold(saved.tensors());
        Ok((loss, self.head.backward(&saved, targets, tokens)?))
    }

    /// How well each target is predicted, given the tokens before it; nothing is dropped.
    pub fn scores(&self, batch: &Batch<'_>, targets: &Targets<'_>) -> Result<Vec<Score>> {
        self.head.scores(&self.hidden(batch)?, targets)
    }

    /// Logits `[places, padded vocabulary]` after the tokens at `places`; columns from `vocab_size`
    /// on mean nothing.
    pub fn logits(&self, batch: &Batch<'_>, places: &[u32]) -> Result<Tensor> {
        self.head.logits(&self.hidden(batch)?, places)
    }

    /// The last block's output `[tokens, hidden]`, nothing dropped.
    fn hidden(&self, batch: &Batch<'_>) -> Result<Tensor> {
        let pass = Pass { batch: *batch, noise: None };
        self.trunk.output(self.embedding.forward(&pass)?, &pass)
    }
}
