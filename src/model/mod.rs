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
mod linear;
mod mlp;
mod norm;
pub mod weights;

use crate::kernels::cross_entropy::Score;
use crate::spec::architecture::Architecture;
use attention::Geometry;
use batch::{Batch, Noise, Pass, Targets};
use block::Block;
use candle_core::{Result, Tensor};
use embedding::Embedding;
use head::Head;
use weights::Weights;

/// A GPT.
#[derive(Debug)]
pub struct Model {
    architecture: Architecture,
    weights: Weights,
    geometry: Geometry,
    embedding: Embedding,
    blocks: Vec<Block>,
    head: Head,
}

impl Model {
    /// The model with these weights, which are its own shape's.
    pub fn new(architecture: &Architecture, weights: Weights) -> Result<Model> {
        let geometry = Geometry::new(architecture)?;
        let block = |layer| Block::new(architecture, &geometry, &weights, layer);
        let blocks = (0..architecture.num_layers).map(block).collect::<Result<_>>()?;
        Ok(Model {
            embedding: Embedding::new(architecture, &weights)?,
            blocks,
            head: Head::new(architecture, &weights)?,
            architecture: architecture.clone(),
            geometry,
            weights,
        })
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
        let mut x = self.embedding.forward(&pass)?;
        let mut saved = Vec::with_capacity(self.blocks.len());
        for block in &self.blocks {
            let (y, kept) = block.forward(&x, &pass)?;
            saved.push(kept);
            x = y;
        }
        let (loss, kept) = self.head.forward(&x, targets)?;
        let mut dx = self.head.backward(&kept, targets, batch.tokens.len())?;
        drop(kept);
        for (block, kept) in self.blocks.iter().zip(saved).rev() {
            dx = block.backward(&kept, &pass, &dx)?;
        }
        self.embedding.backward(&pass, &dx)?;
        Ok(loss)
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
        let mut x = self.embedding.forward(&pass)?;
        for block in &self.blocks {
            (x, _) = block.forward(&x, &pass)?;
        }
        Ok(x)
    }
}
