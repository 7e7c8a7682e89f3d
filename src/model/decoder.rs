//! A rank's part of reading rows of text token by token, remembering keys and values.

use super::Model;
use super::batch::{Batch, Pass};
use super::chunk::Chunk;
use crate::kernels::attention::{Cache, Continued};
use candle_core::{Result, Tensor, bail};

/// Rows being read.
#[derive(Debug)]
pub struct Decoder<'a> {
    model: &'a Model,
    /// Keys and values of every block, by chunk.
    caches: Vec<Vec<Cache>>,
    /// Tokens that each row has read.
    lengths: Vec<usize>,
}

/// New tokens of some rows, end to end.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    tokens: Vec<u32>,
    positions: Vec<u32>,
    starts: Vec<usize>,
    rows: Vec<usize>,
    /// Tokens that each of these rows has read already.
    lengths: Vec<usize>,
    /// The last token of each.
    places: Vec<u32>,
}

impl Reading {
    /// Number of new tokens.
    pub fn tokens(&self) -> usize {
        self.tokens.len()
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows.len()
    }

    fn pass(&self, model: &Model) -> Pass<'_> {
        let Reading { tokens, positions, starts, .. } = self;
        model.pass(&Batch { tokens, positions, starts, addresses: &[] }, None)
    }
}

impl<'a> Decoder<'a> {
    /// Room for `rows` rows of up to `capacity` tokens each.
    pub fn new(model: &'a Model, rows: usize, capacity: usize) -> Result<Decoder<'a>> {
        let (shape, weights) = (&model.geometry.shape, model.weights());
        let place = (weights.formats().products, weights.device());
        let of_chunk = |chunk: &Chunk| {
            (0..chunk.trunk.len()).map(|_| Cache::new(rows, capacity, shape, place)).collect()
        };
        let caches = model.chunks().iter().map(of_chunk).collect::<Result<_>>()?;
        Ok(Decoder { model, caches, lengths: vec![0; rows] })
    }

    /// Notes new tokens of some rows, each row at most once and each with at least one token: they
    /// count as read from here on. Every chunk is to read them now, in the model's order.
    pub fn begin(&mut self, new: &[(usize, &[u32])]) -> Result<Reading> {
        let mut reading = Reading { starts: vec![0], ..Reading::default() };
        for &(row, read) in new {
            let Some(length) = self.lengths.get_mut(row).filter(|_| !read.is_empty()) else {
                bail!("row {row} is not there, or has no new token")
            };
            reading.rows.push(row);
            reading.lengths.push(*length);
            reading.tokens.extend_from_slice(read);
            let positions = *length..*length + read.len();
            reading.positions.extend(positions.map(|position| position as u32));
            reading.starts.push(reading.tokens.len());
            reading.places.push(reading.tokens.len() as u32 - 1);
            *length += read.len();
        }
        Ok(reading)
    }

    /// The residual stream after this rank's chunk number `chunk`, from that of the chunk before;
    /// the model's first chunk takes none.
    pub fn stream(&self, chunk: usize, x: Option<Tensor>, reading: &Reading) -> Result<Tensor> {
        let (Some(part), Some(caches)) = (self.model.chunks().get(chunk), self.caches.get(chunk))
        else {
            bail!("this rank has no chunk {chunk}")
        };
        let pass = reading.pass(self.model);
        let Reading { starts, rows, lengths, .. } = reading;
        let continued = Continued { starts, slots: rows, lengths };
        part.trunk.continued(part.input(x, &pass)?, &pass, caches, &continued)
    }

    /// The logits after the last new token of each row, `[rows, padded vocabulary]`, from the stream
    /// after the model's last chunk; columns from `vocab_size` on mean nothing.
    pub fn logits(&self, stream: &Tensor, reading: &Reading) -> Result<Tensor> {
        let Some(last) = self.model.chunks().last() else { bail!("this rank has no chunk") };
        last.logits(stream, &reading.pass(self.model), &reading.places)
    }

    /// Forgets what a row has read.
    pub fn release(&mut self, row: usize) {
        if let Some(length) = self.lengths.get_mut(row) {
            *length = 0;
        }
    }

    /// Tokens that a row has read.
    pub fn length(&self, row: usize) -> usize {
        self.lengths[row]
    }
}
