//! The GPT with cached keys and values as a [`Predictor`].

use super::predictor::{Logits, ModelError, NewTokens, Predictor};
use crate::engine::replica::{Reader, Replica};
use crate::kernels::argmax;
use crate::kernels::device::to_host;
use candle_core::{DType, Tensor};

/// A model that reads rows of text.
#[derive(Debug)]
pub struct Cached<'a> {
    reader: Reader<'a>,
    context: usize,
}

impl<'a> Cached<'a> {
    /// Room for `rows` rows at a time, of texts that grow to at most so many tokens each, or until
    /// the model's positions end.
    pub fn new(
        replica: Replica<'a>,
        rows: usize,
        lengths: &[usize],
    ) -> Result<Cached<'a>, ModelError> {
        let context = replica.model().architecture().max_position_embeddings;
        let lengths: Vec<usize> = lengths.iter().map(|length| *length.min(&context)).collect();
        Ok(Cached { reader: replica.reader(rows, &lengths)?, context })
    }
}

impl Cached<'_> {
    /// The logits after the last token of each row, where they were computed.
    fn logits(&mut self, rows: &[NewTokens<'_>]) -> Result<Tensor, ModelError> {
        let new: Vec<_> = rows.iter().map(|row| (row.row, row.tokens)).collect();
        Ok(self.reader.extend(&new)?)
    }
}

impl Predictor for Cached<'_> {
    fn extend(&mut self, rows: &[NewTokens<'_>]) -> Result<Logits, ModelError> {
        // As they are stored: half as much to bring from a GPU where they are in half precision.
        let logits = to_host(&self.logits(rows)?)?;
        let width = logits.dim(1)?;
        let values = logits.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
        Ok(Logits { values, width })
    }

    fn extend_greedily(
        &mut self,
        rows: &[NewTokens<'_>],
        vocab_size: usize,
        forbidden: &[Option<u32>],
    ) -> Result<Vec<Option<u32>>, ModelError> {
        Ok(argmax::forward(&self.logits(rows)?, vocab_size, forbidden)?)
    }

    fn release(&mut self, row: usize) {
        self.reader.release(row);
    }

    fn context(&self) -> Option<usize> {
        Some(self.context)
    }
}
