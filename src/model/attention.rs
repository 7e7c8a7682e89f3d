//! Self-attention: fused query, key and value, rotary positions, the core, the output layer.

use super::batch::Pass;
use super::linear::{column, row};
use super::trunk::{Milestone, Reached};
use super::weights::Weights;
use crate::kernels::attention::{self, Cache, Continued, ProbabilityDropout, Shape};
use crate::kernels::rotary::{self, Rotary, Table};
use crate::parallel::group::Pending;
use crate::parallel::linear::{ColumnParallel, RowParallel};
use crate::parallel::regions::TensorAxis;
use crate::spec::architecture::{Architecture, PositionEmbedding};
use candle_core::{Result, Tensor};
use std::sync::Arc;

/// Heads and positions, equal in every block.
#[derive(Clone, Debug)]
pub(super) struct Geometry {
    /// This rank's heads and groups.
    pub(super) shape: Shape,
    /// The model's number of the first of them.
    first_head: usize,
    /// Heads of the model.
    all_heads: usize,
    rotary: Option<Arc<Table>>,
    dropout: f64,
}

impl Geometry {
    pub(super) fn new(model: &Architecture, axis: &TensorAxis) -> Result<Geometry> {
        let all_heads = model.num_attention_heads;
        let (heads, groups) = (axis.part(all_heads), axis.part(model.num_query_groups));
        let shape = Shape {
            heads: heads.len(),
            groups: groups.len(),
            head_dim: model.kv_channels,
            scale: 1.0 / (model.kv_channels as f64).sqrt(),
        };
        let rotary = match model.position_embedding_type {
            PositionEmbedding::Rope => Some(Arc::new(rotary_table(model)?)),
            PositionEmbedding::LearnedAbsolute => None,
        };
        let first_head = heads.start;
        Ok(Geometry { shape, first_head, all_heads, rotary, dropout: model.attention_dropout })
    }

    /// Turns queries and keys of `qkv` in place, if positions are rotary.
    fn turn(&self, qkv: &Tensor, positions: &[u32]) -> Result<()> {
        match &self.rotary {
            Some(table) => rotary::forward(qkv, &self.shape, table, positions),
            None => Ok(()),
        }
    }
}

fn rotary_table(model: &Architecture) -> Result<Table> {
    #[expect(clippy::cast_sign_loss, reason = "a share of a width")]
    let rotated = (model.kv_channels as f64 * model.rotary_percentage) as usize;
    let rotary = Rotary {
        rotated,
        base: model.rotary_base,
        interpolation: model.seq_len_interpolation_factor.unwrap_or(1.0),
    };
    Table::new(model.max_position_embeddings, &rotary)
}

/// The attention layer of one block.
#[derive(Debug)]
pub(super) struct Attention {
    geometry: Geometry,
    /// `layers.3/attention`: where its dropout is addressed.
    name: String,
    pub(super) query_key_value: ColumnParallel,
    pub(super) dense: RowParallel,
}

/// What its backward needs.
#[derive(Debug)]
pub(super) struct Saved {
    /// Queries, keys and values as the core reads them.
    qkv: Tensor,
    /// None when the core is computed again.
    core: Option<Core>,
}

/// The core's output, with what its backward needs.
#[derive(Debug)]
struct Core {
    context: Tensor,
    saved: attention::Saved,
}

impl Saved {
    /// Everything held.
    pub(super) fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        let core = self.core.iter().flat_map(|core| core.saved.tensors());
        std::iter::once(&self.qkv).chain(core)
    }
}

impl Attention {
    pub(super) fn new(
        geometry: &Geometry,
        axis: &TensorAxis,
        weights: &Weights,
        layer: usize,
    ) -> Result<Attention> {
        let prefix = format!("encoder.layers.{layer}.self_attention");
        Ok(Attention {
            geometry: geometry.clone(),
            name: format!("layers.{layer}/attention"),
            query_key_value: column(axis, weights, &format!("{prefix}.query_key_value"))?,
            dense: row(axis, weights, &format!("{prefix}.dense"))?,
        })
    }

    /// Stream to stream, without the output layer's bias; `keeps_core` says whether the backward finds
    /// the core's output or computes it again.
    pub(super) fn forward(
        &self,
        x: &Tensor,
        pass: &Pass<'_>,
        keeps_core: bool,
    ) -> Result<(Tensor, Saved)> {
        let qkv = self.query_key_value.forward_with_bias(x, pass.tokens())?;
        self.geometry.turn(&qkv, pass.batch.positions)?;
        let core = self.core(&qkv, pass)?;
        let y = self.dense.forward(&core.context)?;
        Ok((y, Saved { qkv, core: Some(core).filter(|_| keeps_core) }))
    }

    fn core(&self, qkv: &Tensor, pass: &Pass<'_>) -> Result<Core> {
        let dropout = self.dropout(pass);
        let shape = &self.geometry.shape;
        let (context, saved) = attention::forward(qkv, pass.batch.starts, shape, dropout.as_ref())?;
        Ok(Core { context, saved })
    }

    /// The gradients of `x`, which is on its way, and of `qkv`; adds that of the output layer's weight.
    /// `dy` is the gradient after that layer's bias, whose own gradient the caller adds. `reached` may
    /// start work beside the core.
    pub(super) fn backward(
        &self,
        saved: &Saved,
        pass: &Pass<'_>,
        dy: &Tensor,
        reached: &mut Reached<'_>,
    ) -> Result<(Pending, Tensor)> {
        let geometry = &self.geometry;
        let again;
        let core = if let Some(core) = &saved.core {
            core
        } else {
            again = self.core(&saved.qkv, pass)?;
            &again
        };
        let dy = self.dense.gathered(dy, pass.tokens())?;
        let d_context = self.dense.backward_input(&dy)?;
        reached(Milestone::Attention)?;
        let (starts, dropout) = (pass.batch.starts, self.dropout(pass));
        let d_qkv = attention::backward(
            &core.saved,
            starts,
            &geometry.shape,
            dropout.as_ref(),
            &d_context,
        )?;
        if let Some(table) = &geometry.rotary {
            rotary::backward(&d_qkv, &geometry.shape, table, pass.batch.positions)?;
        }
        self.query_key_value.backward_bias(&d_qkv)?;
        let dx = self.query_key_value.start_backward_input(&d_qkv)?;
        self.dense.backward_weight(&core.context, &dy)?;
        Ok((dx, d_qkv))
    }

    /// The forward of tokens that follow those in `cache`, without the output layer's bias.
    pub(super) fn continued(
        &self,
        x: &Tensor,
        positions: &[u32],
        cache: &Cache,
        continued: &Continued<'_>,
    ) -> Result<Tensor> {
        let qkv = self.query_key_value.forward_with_bias(x, positions.len())?;
        self.geometry.turn(&qkv, positions)?;
        let context = attention::cached(&qkv, cache, continued, &self.geometry.shape)?;
        self.dense.forward(&context)
    }

    fn dropout<'a>(&self, pass: &Pass<'a>) -> Option<ProbabilityDropout<'a>> {
        let Geometry { first_head, all_heads, dropout, .. } = self.geometry;
        let dropout = pass.dropout(dropout, &self.name)?;
        Some(ProbabilityDropout { dropout, first_head, all_heads })
    }
}
