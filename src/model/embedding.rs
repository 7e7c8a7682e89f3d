//! Tokens to hidden vectors: word embedding, learned positions if any, dropout.

use super::batch::Pass;
use super::weights::{Slot, Weights};
use crate::kernels::dropout;
use crate::kernels::embedding::{self, Lookup};
use crate::layout::parameters::{POSITION_EMBEDDINGS, WORD_EMBEDDINGS};
use crate::spec::architecture::Architecture;
use candle_core::{Result, Tensor, bail};

/// The embedding of the first pipeline stage.
#[derive(Debug)]
pub struct Embedding {
    words: Slot,
    positions: Option<Slot>,
    vocab_size: usize,
    dropout: f64,
}

impl Embedding {
    pub(super) fn new(model: &Architecture, weights: &Weights) -> Result<Embedding> {
        Ok(Embedding {
            words: weights.expect(WORD_EMBEDDINGS)?,
            positions: weights.slot(POSITION_EMBEDDINGS)?,
            vocab_size: model.vocab_size,
            dropout: model.hidden_dropout,
        })
    }

    /// `[tokens, hidden]`.
    pub fn forward(&self, pass: &Pass<'_>) -> Result<Tensor> {
        let batch = &pass.batch;
        if let Some(token) = batch.tokens.iter().find(|token| **token as usize >= self.vocab_size) {
            bail!("token {token} is not below the vocabulary's size {}", self.vocab_size)
        }
        let words = Lookup { table: &self.words.value, first: 0, ids: batch.tokens };
        let positions = self.positions.as_ref();
        let positions =
            positions.map(|slot| Lookup { table: &slot.value, first: 0, ids: batch.positions });
        let x = embedding::forward(&words, positions.as_ref())?;
        match pass.dropout(self.dropout, "embedding") {
            Some(dropout) => dropout::apply(&x, &dropout),
            None => Ok(x),
        }
    }

    /// Adds the gradients of the tables, from `dy` `[tokens, hidden]`.
    pub fn backward(&self, pass: &Pass<'_>, dy: &Tensor) -> Result<()> {
        let dy = match pass.dropout(self.dropout, "embedding") {
            Some(dropout) => &dropout::apply(dy, &dropout)?,
            None => dy,
        };
        let batch = &pass.batch;
        embedding::backward(
            &Lookup { table: &self.words.gradient, first: 0, ids: batch.tokens },
            dy,
        )?;
        match &self.positions {
            Some(slot) => {
                let lookup = Lookup { table: &slot.gradient, first: 0, ids: batch.positions };
                embedding::backward(&lookup, dy)
            }
            None => Ok(()),
        }
    }
}
