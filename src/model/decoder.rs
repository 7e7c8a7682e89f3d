//! A rank's part of reading rows of text token by token, remembering keys and values.

use super::Model;
use super::batch::{Batch, Pass};
use super::chunk::Chunk;
use crate::kernels::attention::{BLOCK, Cache, Continued};
use crate::kernels::graph::Graphs;
use candle_core::{Result, Tensor, bail};

/// Rows being read.
#[derive(Debug)]
pub struct Decoder<'a> {
    model: &'a Model,
    /// Keys and values of every layer, by chunk; a row has the same blocks in all of them.
    caches: Vec<Vec<Cache>>,
    rows: Vec<Row>,
    /// Blocks of the caches that no row has.
    free: Vec<u32>,
    /// Steps of one token each, where the whole model is here.
    steps: Graphs,
}

/// A row, as far as it has been read.
#[derive(Clone, Debug, Default)]
struct Row {
    /// Its tokens.
    length: usize,
    /// Where their keys and values stand.
    blocks: Vec<u32>,
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
    /// Place for `rows` rows, which share `blocks` blocks of [`BLOCK`] tokens.
    pub fn new(model: &'a Model, rows: usize, blocks: usize) -> Result<Decoder<'a>> {
        let (shape, weights) = (&model.geometry.shape, model.weights());
        let place = (weights.formats().products, weights.device());
        let of_chunk = |chunk: &Chunk| {
            (0..chunk.trunk.len()).map(|_| Cache::new(blocks, shape, place)).collect()
        };
        let caches = model.chunks().iter().map(of_chunk).collect::<Result<_>>()?;
        let free = (0..blocks as u32).rev().collect();
        let rows = vec![Row::default(); rows];
        Ok(Decoder { model, caches, rows, free, steps: Graphs::default() })
    }

    /// Notes new tokens of some rows, each row at most once and each with at least one token: they
    /// count as read from here on. Every chunk is to read them now, in the model's order.
    pub fn begin(&mut self, new: &[(usize, &[u32])]) -> Result<Reading> {
        let mut reading = Reading { starts: vec![0], ..Reading::default() };
        for &(row, read) in new {
            let Some(known) = self.rows.get_mut(row).filter(|_| !read.is_empty()) else {
                bail!("row {row} is not there, or has no new token")
            };
            let positions = known.length..known.length + read.len();
            known.length = positions.end;
            while known.blocks.len() * BLOCK < known.length {
                let Some(block) = self.free.pop() else {
                    bail!("no block is left for row {row}, which has {} tokens", known.length)
                };
                known.blocks.push(block);
            }
            reading.rows.push(row);
            reading.lengths.push(positions.start);
            reading.tokens.extend_from_slice(read);
            reading.positions.extend(positions.map(|position| position as u32));
            reading.starts.push(reading.tokens.len());
            reading.places.push(reading.tokens.len() as u32 - 1);
        }
        Ok(reading)
    }

    /// The residual stream after this rank's chunk number `chunk`, from that of the chunk before;
    /// the model's first chunk takes none.
    pub fn stream(&self, chunk: usize, x: Option<Tensor>, reading: &Reading) -> Result<Tensor> {
        self.through(chunk, x, reading, &self.continued(reading)?)
    }

    /// The logits after the last new token of each row, `[rows, padded vocabulary]`, from the stream
    /// after the model's last chunk; columns from `vocab_size` on mean nothing.
    pub fn logits(&self, stream: &Tensor, reading: &Reading) -> Result<Tensor> {
        let Some(last) = self.model.chunks().last() else { bail!("this rank has no chunk") };
        last.logits(stream, &reading.pass(self.model), &reading.places)
    }

    /// The same from the new tokens, of a model that is one chunk; good until the next reading.
    pub fn logits_at_once(&mut self, reading: &Reading) -> Result<Tensor> {
        let continued = self.continued(reading)?;
        let is_step = reading.tokens() == reading.rows();
        if is_step {
            self.check(reading)?;
        }
        let mut steps = std::mem::take(&mut self.steps);
        let work = || self.logits(&self.through(0, None, reading, &continued)?, reading);
        let lists = [&reading.tokens[..], &reading.positions, continued.list()];
        let device = self.model.weights().device();
        let logits = if is_step { steps.run(device, &lists, work) } else { work() };
        self.steps = steps;
        logits
    }

    /// What operations check of a reading's numbers: launched again, they check nothing.
    fn check(&self, reading: &Reading) -> Result<()> {
        let architecture = self.model.architecture();
        let (words, most) = (architecture.vocab_size, architecture.max_position_embeddings);
        if let Some(id) = reading.tokens.iter().find(|id| **id as usize >= words) {
            bail!("token {id} is not below the vocabulary's size {words}")
        }
        match reading.positions.iter().find(|position| **position as usize >= most) {
            Some(position) => bail!("position {position} is beyond the model's {most}"),
            None => Ok(()),
        }
    }

    fn through(
        &self,
        chunk: usize,
        x: Option<Tensor>,
        reading: &Reading,
        continued: &Continued<'_>,
    ) -> Result<Tensor> {
        let (Some(part), Some(caches)) = (self.model.chunks().get(chunk), self.caches.get(chunk))
        else {
            bail!("this rank has no chunk {chunk}")
        };
        let pass = reading.pass(self.model);
        part.trunk.continued(part.input(x, &pass)?, &pass, caches, continued)
    }

    fn continued<'r>(&self, reading: &'r Reading) -> Result<Continued<'r>> {
        let blocks: Vec<&[u32]> =
            reading.rows.iter().map(|row| &self.rows[*row].blocks[..]).collect();
        Continued::new(&reading.starts, &blocks, &reading.lengths)
    }

    /// Forgets what a row has read; its blocks are free for others.
    pub fn release(&mut self, row: usize) {
        if let Some(row) = self.rows.get_mut(row) {
            self.free.extend(std::mem::take(row).blocks);
        }
    }
}
