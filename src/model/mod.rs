//! The GPT, written once for any layout.
//!
//! Every layer has a forward that gives what its backward needs, and a backward that gives the
//! gradient of its input and adds those of its parameters to [`weights::Weights::gradients`].
//! Hidden tensors are `[tokens, hidden]`, the tokens of a few sequences end to end ([`batch`]).
//! Where a layer is split over ranks, it is made of `parallel`'s layers; nothing here asks how many
//! there are. Tensors called the (residual) stream may hold a rank's rows only.

pub mod activation_meter;
mod attention;
pub mod batch;
pub mod block;
pub mod chunk;
pub mod decoder;
pub mod embedding;
pub mod formats;
pub mod head;
mod linear;
mod mlp;
mod norm;
pub mod trunk;
pub mod weights;

use crate::layout::mesh::layers_of_stage;
use crate::parallel::mesh::Mesh;
use crate::parallel::regions::TensorAxis;
use crate::spec::architecture::Architecture;
use crate::spec::optimization::Recompute;
use activation_meter::ActivationMeter;
use attention::Geometry;
use batch::{Batch, Noise, Pass, Targets};
use block::Block;
use candle_core::{Result, Tensor, bail};
use chunk::{Chunk, Output};
use embedding::Embedding;
use head::Head;
use std::ops::Range;
use trunk::{Reached, Trunk};
use weights::Weights;

/// What one rank holds of a GPT.
#[derive(Debug)]
pub struct Model {
    architecture: Architecture,
    axis: TensorAxis,
    weights: Weights,
    geometry: Geometry,
    /// In the order of the model; several on a pipeline stage with virtual stages.
    chunks: Vec<Chunk>,
    meter: ActivationMeter,
}

impl Model {
    /// The whole model with these weights, which are its own shape's.
    pub fn new(architecture: &Architecture, weights: Weights) -> Result<Model> {
        Model::of_rank(architecture, weights, &Mesh::single())
    }

    /// What a rank of `mesh` holds, with its weights.
    pub fn of_rank(architecture: &Architecture, weights: Weights, mesh: &Mesh) -> Result<Model> {
        let axis = TensorAxis::of(mesh);
        let geometry = Geometry::new(architecture, &axis)?;
        let meter = ActivationMeter::default();
        let chunk = |layers: Range<usize>| {
            let shared = (architecture, &geometry);
            let block = |layer| Block::new(shared, &axis, &weights, layer);
            let (first, last) = (layers.start == 0, layers.end == architecture.num_layers);
            let embedding = || Embedding::new(architecture, &axis, &weights);
            let head = || Head::new(architecture, &axis, &weights);
            Ok(Chunk {
                embedding: first.then(embedding).transpose()?,
                trunk: Trunk::new(layers.map(block).collect::<Result<_>>()?, meter.clone()),
                head: last.then(head).transpose()?,
                meter: meter.clone(),
            })
        };
        let layers = layers_of_stage(&mesh.degrees, architecture.num_layers, mesh.at.pipeline);
        let chunks = layers.into_iter().map(chunk).collect::<Result<_>>()?;
        Ok(Model { architecture: architecture.clone(), axis, weights, geometry, chunks, meter })
    }

    /// The same model with this recomputation; without it nothing is computed again.
    #[must_use]
    pub fn with_recompute(mut self, recompute: Recompute) -> Model {
        for chunk in &mut self.chunks {
            chunk.trunk.set_recompute(recompute);
        }
        self
    }

    /// Counts what forward passes keep for their backward.
    pub fn meter(&self) -> &ActivationMeter {
        &self.meter
    }

    /// The shape of the whole.
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// Parameters and gradients.
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// The parts of the model on this rank, in their order.
    pub fn chunks(&self) -> &[Chunk] {
        &self.chunks
    }

    /// `batch` on its way through the model, with noise in training.
    pub fn pass<'a>(&self, batch: &Batch<'a>, noise: Option<Noise>) -> Pass<'a> {
        Pass::new(batch, noise, &self.axis)
    }

    /// The shape of the residual stream between chunks, for `tokens` tokens.
    pub fn stream_shape(&self, tokens: usize) -> (usize, usize) {
        (self.axis.stream_rows(tokens), self.architecture.hidden_size)
    }

    /// Training's forward and backward where one stage holds the model: gives the sum of the loss
    /// over the targets, in nats, and adds the gradients of that sum.
    pub fn learn(&self, batch: &Batch<'_>, targets: &Targets<'_>, noise: Noise) -> Result<f64> {
        self.learn_and_tell(batch, targets, noise, &mut |_| Ok(()))
    }

    /// [`learn`](Model::learn) that tells `reached` where its backward has come to.
    pub fn learn_and_tell(
        &self,
        batch: &Batch<'_>,
        targets: &Targets<'_>,
        noise: Noise,
        reached: &mut Reached<'_>,
    ) -> Result<f64> {
        let pass = self.pass(batch, Some(noise));
        let whole = self.whole()?;
        match whole.forward(None, &pass, targets)? {
            (Output::Loss(loss), saved) => {
                whole.backward(saved, &pass, None, reached)?;
                Ok(loss)
            }
            (Output::Stream(_), _) => bail!("the model has no head"),
        }
    }

    /// Logits `[places, padded vocabulary]` after the tokens at `places`; columns from `vocab_size`
    /// on mean nothing.
    pub fn logits(&self, batch: &Batch<'_>, places: &[u32]) -> Result<Tensor> {
        let (whole, pass) = (self.whole()?, self.pass(batch, None));
        whole.logits(&whole.stream(None, &pass)?, &pass, places)
    }

    /// The chunk that is the whole model.
    fn whole(&self) -> Result<&Chunk> {
        match self.chunks.as_slice() {
            [chunk] if chunk.is_first() && chunk.is_last() => Ok(chunk),
            _ => bail!("this needs a model on one pipeline stage"),
        }
    }
}
