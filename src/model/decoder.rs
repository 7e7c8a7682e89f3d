//! A model that reads a few rows of text token by token, remembering keys and values.

use super::Model;
use super::batch::Batch;
use crate::kernels::attention::{Cache, Continued};
use candle_core::{Result, Tensor};

/// Rows being read.
#[derive(Debug)]
pub struct Decoder<'a> {
    model: &'a Model,
    /// Keys and values of every block.
    caches: Vec<Cache>,
    /// Tokens that each row has read.
    lengths: Vec<usize>,
}

impl<'a> Decoder<'a> {
    /// Room for `rows` rows of up to `capacity` tokens each.
    pub fn new(model: &'a Model, rows: usize, capacity: usize) -> Result<Decoder<'a>> {
        let (shape, weights) = (&model.geometry.shape, model.weights());
        let place = (weights.formats().products, weights.device());
        let cache = |_| Cache::new(rows, capacity, shape, place);
        let caches = (0..model.whole()?.trunk.len()).map(cache).collect::<Result<_>>()?;
        Ok(Decoder { model, caches, lengths: vec![0; rows] })
    }

    /// Reads new tokens of some rows, each row at most once and each with at least one token.
    ///
    /// Gives the logits after the last token of each, `[rows given, padded vocabulary]`; columns
    /// from `vocab_size` on mean nothing.
    pub fn extend(&mut self, new: &[(usize, &[u32])]) -> Result<Tensor> {
        let (mut tokens, mut positions, mut starts) = (Vec::new(), Vec::new(), vec![0]);
        let (mut slots, mut lengths, mut places) = (Vec::new(), Vec::new(), Vec::new());
        for &(row, read) in new {
            let Some(&length) = self.lengths.get(row).filter(|_| !read.is_empty()) else {
                candle_core::bail!("row {row} is not there, or has no new token")
            };
            tokens.extend_from_slice(read);
            positions.extend((length..length + read.len()).map(|position| position as u32));
            starts.push(tokens.len());
            slots.push(row);
            lengths.push(length);
            places.push(tokens.len() as u32 - 1);
        }
        let batch =
            Batch { tokens: &tokens, positions: &positions, starts: &starts, addresses: &[] };
        let (whole, pass) = (self.model.whole()?, self.model.pass(&batch, None));
        let continued = Continued { starts: &starts, slots: &slots, lengths: &lengths };
        let x = whole.input(None, &pass)?;
        let x = whole.trunk.continued(x, &pass, &self.caches, &continued)?;
        for &(row, read) in new {
            self.lengths[row] += read.len();
        }
        whole.logits(&x, &pass, &places)
    }

    /// Forgets what a row has read.
    pub fn release(&mut self, row: usize) {
        self.lengths[row] = 0;
    }

    /// Tokens that a row has read.
    pub fn length(&self, row: usize) -> usize {
        self.lengths[row]
    }
}
