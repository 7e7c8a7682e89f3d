//! A model that is read from, over all ranks that hold it: one leads, the others do their part.
//!
//! What the leader wants is told to the others as a [`Command`]; every rank then takes the residual
//! stream through its chunks, and the last pipeline stage sends the leader what came out. So whoever
//! asks for text or scores is written once, for the leader, and sees one model.

mod command;

use crate::kernels::attention::BLOCK;
use crate::kernels::cross_entropy::Score;
use crate::kernels::device::to_host;
use crate::model::Model;
use crate::model::batch::{Batch, Targets};
use crate::model::decoder::Decoder;
use crate::parallel::group::{Like, Route};
use crate::parallel::mesh::Mesh;
use crate::spec::optimization::Degrees;
use candle_core::{DType, Result, Tensor, bail};
use command::{Command, ScoredBatch};
use std::cell::Cell;

/// Between pipeline stages: the residual stream, and the last stage's answer to the leader. Training
/// has queues of its own.
const STREAM: u64 = 2;
const ANSWER: u64 = 3;

/// What one rank does for those that read from the model.
///
/// Nothing is computed again, and each tensor rank has the whole residual stream: recomputation and
/// sequence parallelism are for training.
#[derive(Debug)]
pub struct Member {
    model: Model,
    mesh: Mesh,
    /// Whether a command of the leader failed on its way, so that the others listen no more.
    is_broken: Cell<bool>,
}

/// What happened to a rank of those that read together.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct RankFailure {
    #[source]
    error: Box<dyn std::error::Error + Send + Sync>,
    is_accident: bool,
}

impl RankFailure {
    /// What happened.
    pub(super) fn new(error: impl std::error::Error + Send + Sync + 'static) -> RankFailure {
        RankFailure { error: Box::new(error), is_accident: false }
    }

    /// The same, known to be an accident or not.
    pub(super) fn by_accident(self, is_accident: bool) -> RankFailure {
        RankFailure { is_accident, ..self }
    }

    /// Whether it may well not happen again: a node was lost, or a rank panicked.
    pub fn is_accident(&self) -> bool {
        self.is_accident
    }
}

/// The model as its leading rank has it.
#[derive(Clone, Copy, Debug)]
pub struct Replica<'a> {
    member: &'a Member,
}

/// Rows of text that are being read.
#[derive(Debug)]
pub struct Reader<'a> {
    replica: Replica<'a>,
    decoder: Decoder<'a>,
    /// Rows that the other ranks have not been told to forget.
    released: Vec<usize>,
}

impl Member {
    /// The part that a rank of `mesh` has of `model`, whose weights it shares.
    pub fn of(model: &Model, mesh: &Mesh) -> Result<Member> {
        let degrees = Degrees { sequence: false, ..mesh.degrees };
        let mesh = Mesh { degrees, ..mesh.clone() };
        mesh.tensor.open(model.weights().device())?;
        mesh.pipeline.connect(model.weights().device(), &routes(&degrees))?;
        let model = Model::of_rank(model.architecture(), model.weights().clone(), &mesh)?;
        Ok(Member { model, mesh, is_broken: Cell::new(false) })
    }

    /// `model` on one rank, which holds all of it.
    pub fn alone(model: &Model) -> Result<Member> {
        Member::of(model, &Mesh::single())
    }

    /// The model, where this rank is the only one.
    pub fn whole(&self) -> Result<Replica<'_>> {
        match self.ranks() {
            1 => Ok(Replica { member: self }),
            ranks => bail!("{ranks} ranks hold the model: one of them has to lead"),
        }
    }

    /// Whether this rank leads its replica.
    pub fn leads(&self) -> bool {
        self.mesh.at.pipeline == 0 && self.mesh.at.tensor == 0
    }

    /// Lets `work` read from the model on the rank that leads while the others do their part; gives
    /// what it gave there, and none on the others.
    pub fn lead<R, E: From<RankFailure>>(
        &self,
        work: impl FnOnce(Replica<'_>) -> std::result::Result<R, E>,
    ) -> std::result::Result<Option<R>, E> {
        if !self.leads() {
            self.follow().map_err(RankFailure::new)?;
            return Ok(None);
        }
        let result = work(Replica { member: self });
        if !self.is_broken.get() {
            self.tell(&Command::End).map_err(RankFailure::new)?;
        }
        result.map(Some)
    }

    /// Does what the leader tells, to the end.
    fn follow(&self) -> Result<()> {
        let mut decoder = None;
        loop {
            match (Command::hear(&self.mesh)?, &mut decoder) {
                (Command::End, _) => return Ok(()),
                (Command::Open { rows, blocks }, decoder) => {
                    *decoder = Some(Decoder::new(&self.model, rows, blocks)?);
                }
                (Command::Extend { released, new }, Some(decoder)) => {
                    for row in released {
                        decoder.release(row);
                    }
                    let new: Vec<_> = new.iter().map(|(row, read)| (*row, &read[..])).collect();
                    self.extend(decoder, &new)?;
                }
                (Command::Score(batch), _) => {
                    self.scores(&batch.batch(), &batch.targets())?;
                }
                (command, None) => bail!("{command:?} comes before there are rows"),
            }
        }
    }

    /// Ranks of a replica.
    fn ranks(&self) -> usize {
        self.mesh.degrees.tensor * self.mesh.degrees.pipeline
    }

    /// Tells the other ranks what to do; the leader's.
    fn tell(&self, command: &Command) -> Result<()> {
        if self.ranks() > 1 { command.tell(&self.mesh) } else { Ok(()) }
    }

    /// Reads new tokens of rows. Gives the leader the logits after the last token of each,
    /// `[rows, padded vocabulary]`.
    fn extend(&self, decoder: &mut Decoder<'_>, new: &[(usize, &[u32])]) -> Result<Option<Tensor>> {
        let reading = decoder.begin(new)?;
        if self.ranks() == 1 {
            return decoder.logits_at_once(&reading).map(Some);
        }
        let stream = self
            .through(reading.tokens(), |chunk, x| decoder.stream(chunk, x, &reading))?
            .map(|stream| decoder.logits(&stream, &reading))
            .transpose()?;
        let width = self.model.architecture().padded_vocab_size;
        self.answer(stream, (reading.rows(), width), self.model.weights().formats().products)
    }

    /// Gives the leader how well each target is predicted.
    fn scores(&self, batch: &Batch<'_>, targets: &Targets<'_>) -> Result<Option<Vec<Score>>> {
        let pass = self.model.pass(batch, None);
        let chunks = self.model.chunks();
        let stream = self.through(batch.tokens.len(), |chunk, x| chunks[chunk].stream(x, &pass))?;
        let scores = match (stream, chunks.last()) {
            (Some(stream), Some(last)) => Some(last.scores(&stream, &pass, targets)?),
            _ => None,
        };
        let numbers = |scores: Vec<Score>| -> Result<Tensor> {
            let row = |score: &Score| [score.log_probability, f64::from(u8::from(score.is_argmax))];
            let numbers: Vec<f64> = scores.iter().flat_map(row).collect();
            Tensor::from_vec(numbers, (scores.len(), 2), self.model.weights().device())
        };
        let scores = scores.map(numbers).transpose()?;
        let answer = self.answer(scores, (targets.labels.len(), 2), DType::F64)?;
        let score = |row: Vec<f64>| Score { log_probability: row[0], is_argmax: row[1] > 0.0 };
        let rows = answer.map(|answer| to_host(&answer)?.to_vec2()).transpose()?;
        Ok(rows.map(|rows| rows.into_iter().map(score).collect()))
    }

    /// Takes the residual stream of `tokens` tokens through this rank's chunks, each in its turn;
    /// gives the stream after the last chunk on the last pipeline stage.
    fn through(
        &self,
        tokens: usize,
        mut chunk: impl FnMut(usize, Option<Tensor>) -> Result<Tensor>,
    ) -> Result<Option<Tensor>> {
        let (stages, at, pipeline) =
            (self.mesh.degrees.pipeline, self.mesh.at.pipeline, &self.mesh.pipeline);
        let weights = self.model.weights();
        let like = Like {
            shape: self.model.stream_shape(tokens).into(),
            dtype: weights.formats().parameters,
            device: weights.device().clone(),
        };
        let chunks = self.model.chunks().len();
        for number in 0..chunks {
            let x = match (at, number) {
                (0, 0) => None,
                _ => Some(pipeline.receive(&like, (at + stages - 1) % stages, STREAM)?),
            };
            let y = chunk(number, x)?;
            if self.mesh.is_last_stage() && number + 1 == chunks {
                return Ok(Some(y));
            }
            pipeline.send(&y, (at + 1) % stages, STREAM)?;
        }
        Ok(None)
    }

    /// Brings what the last pipeline stage has to the leader.
    fn answer(
        &self,
        here: Option<Tensor>,
        shape: (usize, usize),
        dtype: DType,
    ) -> Result<Option<Tensor>> {
        let Mesh { degrees, at, pipeline, .. } = &self.mesh;
        if at.tensor > 0 {
            return Ok(None);
        }
        match here {
            Some(here) if degrees.pipeline > 1 => {
                pipeline.send(&here, 0, ANSWER)?;
                Ok(None)
            }
            Some(here) => Ok(Some(here)),
            None if self.leads() => {
                let device = self.model.weights().device().clone();
                let like = Like { shape: shape.into(), dtype, device };
                pipeline.receive(&like, degrees.pipeline - 1, ANSWER).map(Some)
            }
            None => Ok(None),
        }
    }
}

impl<'a> Replica<'a> {
    /// This rank's part of the model; all of it where one rank holds the model.
    pub fn model(self) -> &'a Model {
        &self.member.model
    }

    /// Number of this replica, and how many there are.
    pub fn share(self) -> (usize, usize) {
        (self.member.mesh.at.data, self.member.mesh.degrees.data)
    }

    /// Place for `rows` rows at a time, of texts of at most so many tokens each, in place of the
    /// rows before. There is room for the longest of them together.
    pub fn reader(self, rows: usize, lengths: &[usize]) -> Result<Reader<'a>> {
        let blocks = blocks(rows, lengths);
        self.watched(|member| {
            member.tell(&Command::Open { rows, blocks })?;
            let decoder = Decoder::new(&member.model, rows, blocks)?;
            Ok(Reader { replica: self, decoder, released: Vec::new() })
        })
    }

    /// How well each target is predicted, given the tokens before it.
    pub fn scores(self, batch: &Batch<'_>, targets: &Targets<'_>) -> Result<Vec<Score>> {
        self.watched(|member| {
            if member.ranks() > 1 {
                member.tell(&Command::Score(ScoredBatch::of(batch, targets)))?;
            }
            here(member.scores(batch, targets)?)
        })
    }

    /// `work`, whose failure leaves the other ranks in the middle of something.
    fn watched<R>(self, work: impl FnOnce(&'a Member) -> Result<R>) -> Result<R> {
        work(self.member).inspect_err(|_| self.member.is_broken.set(true))
    }
}

impl Reader<'_> {
    /// Reads new tokens of some rows, each row at most once and each with at least one token; gives
    /// the logits after the last of each, `[rows given, padded vocabulary]`, good until the next call.
    /// Columns from `vocab_size` on mean nothing.
    pub fn extend(&mut self, new: &[(usize, &[u32])]) -> Result<Tensor> {
        let (decoder, released) = (&mut self.decoder, std::mem::take(&mut self.released));
        self.replica.watched(|member| {
            if member.ranks() > 1 {
                let new = new.iter().map(|(row, read)| (*row, read.to_vec())).collect();
                member.tell(&Command::Extend { released, new })?;
            }
            here(member.extend(decoder, new)?)
        })
    }

    /// Forgets what a row has read; others have its room.
    pub fn release(&mut self, row: usize) {
        self.decoder.release(row);
        self.released.push(row);
    }
}

/// The routes of what the ranks of a pipeline tell each other: the residual stream, and the answer.
fn routes(degrees: &Degrees) -> Vec<Route> {
    let Degrees { pipeline, virtual_pipeline, .. } = *degrees;
    let answer = Route { from: pipeline - 1, to: 0, tag: ANSWER };
    let stream = Route::chain(pipeline, virtual_pipeline > 1, STREAM);
    stream.into_iter().chain((pipeline > 1).then_some(answer)).collect()
}

/// Blocks of a cache that the longest `rows` texts need together; at least one.
fn blocks(rows: usize, lengths: &[usize]) -> usize {
    let mut blocks: Vec<usize> = lengths.iter().map(|length| length.div_ceil(BLOCK)).collect();
    blocks.sort_unstable();
    blocks.iter().rev().take(rows).sum::<usize>().max(1)
}

/// What only the leader has.
fn here<T>(answer: Option<T>) -> Result<T> {
    match answer {
        Some(answer) => Ok(answer),
        None => bail!("the leader got no answer (a bug of this program)"),
    }
}
