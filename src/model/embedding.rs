//! Tokens to hidden vectors: word embedding, learned positions if any, dropout.

use super::batch::Pass;
use super::weights::{ParameterView, Weights};
use crate::kernels::dropout;
use crate::kernels::embedding::{self, Lookup};
use crate::layout::parameters::{POSITION_EMBEDDINGS, WORD_EMBEDDINGS};
use crate::parallel::regions::TensorAxis;
use crate::parallel::vocabulary::Vocabulary;
use crate::spec::architecture::Architecture;
use candle_core::{Result, Tensor};

/// The embedding of the first pipeline stage.
#[derive(Debug)]
pub struct Embedding {
    axis: TensorAxis,
    words: Vocabulary,
    positions: Option<ParameterView>,
    dropout: f64,
}

impl Embedding {
    pub(super) fn new(
        model: &Architecture,
        axis: &TensorAxis,
        weights: &Weights,
    ) -> Result<Embedding> {
        Ok(Embedding {
            axis: axis.clone(),
            words: Vocabulary::new(axis, weights.expect(WORD_EMBEDDINGS)?, model.vocab_size)?,
            positions: weights.view(POSITION_EMBEDDINGS)?,
            dropout: model.hidden_dropout,
        })
    }

    /// The residual stream before the first block.
    pub fn forward(&self, pass: &Pass<'_>) -> Result<Tensor> {
        let positions = self.positions.as_ref();
        let positions = positions.map(|table| at_positions(&table.value, pass));
        let x = self.words.embed(pass.batch.tokens, positions.as_ref())?;
        match pass.stream_dropout(self.dropout, "embedding") {
            Some(dropout) => dropout::apply(&x, &dropout),
            None => Ok(x),
        }
    }

    /// Adds the gradients of the tables, from the stream's gradient `dy`.
    pub fn backward(&self, pass: &Pass<'_>, dy: &Tensor) -> Result<()> {
        let dy = match pass.stream_dropout(self.dropout, "embedding") {
            Some(dropout) => &dropout::apply(dy, &dropout)?,
            None => dy,
        };
        let dy = self.axis.gathered(dy, pass.tokens())?;
        self.words.embed_backward(pass.batch.tokens, &dy)?;
        match self.positions.as_ref().filter(|table| table.learns) {
            Some(table) => embedding::backward(&at_positions(table.gradient()?, pass), &dy),
            None => Ok(()),
        }
    }
}

fn at_positions<'a>(table: &'a Tensor, pass: &Pass<'a>) -> Lookup<'a> {
    Lookup { table, first: 0, ids: pass.batch.positions }
}
