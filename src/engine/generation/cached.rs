//! The GPT with cached keys and values as a [`Predictor`].

use super::predictor::{Logits, ModelError, NewTokens, Predictor};
use crate::model::Model;
use crate::model::decoder::Decoder;
use candle_core::DType;

/// A model that reads rows of text.
#[derive(Debug)]
pub struct Cached<'a> {
    decoder: Decoder<'a>,
    context: usize,
}

impl<'a> Cached<'a> {
    /// Room for `rows` rows; none of them will read more than `longest` tokens.
    pub fn new(model: &'a Model, rows: usize, longest: usize) -> Result<Cached<'a>, ModelError> {
        let context = model.architecture().max_position_embeddings;
        let decoder = Decoder::new(model, rows, longest.min(context))?;
        Ok(Cached { decoder, context })
    }
}

impl Predictor for Cached<'_> {
    fn extend(&mut self, rows: &[NewTokens<'_>]) -> Result<Logits, ModelError> {
        let new: Vec<_> = rows.iter().map(|row| (row.row, row.tokens)).collect();
        let logits = self.decoder.extend(&new)?;
        let width = logits.dim(1)?;
        let values = logits.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
        Ok(Logits { values, width })
    }

    fn release(&mut self, row: usize) {
        self.decoder.release(row);
    }

    fn context(&self) -> Option<usize> {
        Some(self.context)
    }
}
