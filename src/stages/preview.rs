//! The first samples of a tokenize stage as the model will see them, made without running it.

use super::Folders;
use super::tokenize::{self, Error};
use crate::data::packing;
use crate::data::rows;
use crate::data::samples::{Sample, SampleMaker};
use crate::data::tokenizer::Tokenizer;
use crate::spec::job::{RowSource, TokenizeJob};
use serde::Serialize;

/// What a tokenize stage makes of its first rows.
#[derive(Clone, Debug, Serialize)]
pub struct Preview {
    /// The first samples of every source.
    pub samples: Vec<Shown>,
    /// Samples made of the rows that were looked at.
    pub seen: usize,
    /// Their tokens.
    pub tokens: usize,
    /// Those that are learned from.
    pub learned: usize,
    /// Samples that were too long and lost something.
    pub cut: usize,
    /// Samples in which nothing is learned; training leaves them out.
    pub masked: usize,
    /// Training sequences that packing makes of the samples, and the share of their room that is
    /// filled.
    pub packed: (usize, f64),
}

/// One sample.
#[derive(Clone, Debug, Serialize)]
pub struct Shown {
    /// Its task.
    pub task: String,
    /// Its split.
    pub split: &'static str,
    /// Its tokens.
    pub tokens: Vec<Token>,
    /// Number of tokens before the answer.
    pub prompt_tokens: usize,
    /// Whether it was too long and lost something.
    pub cut: bool,
}

/// One token.
#[derive(Clone, Debug, Serialize)]
pub struct Token {
    /// Its id.
    pub id: u32,
    /// Its text; of a special token its spelling.
    pub text: String,
    /// Whether it is learned as a label.
    pub learned: bool,
}

impl Shown {
    /// Number of tokens that are learned.
    pub fn learned(&self) -> usize {
        self.tokens.iter().filter(|token| token.learned).count()
    }
}

/// Most rows of each file that are looked at: those that are read at a time.
fn look(
    source: &RowSource,
    path: &std::path::Path,
    tokenizer: &Tokenizer,
    max_length: usize,
) -> Result<Vec<Sample>, Error> {
    let maker = SampleMaker::new(source, tokenizer, max_length)?;
    let mut samples = Vec::new();
    rows::for_each_row(path, &|row| maker.samples(row), |chunk| {
        samples = chunk.into_iter().flatten().collect();
        false
    })?;
    Ok(samples)
}

/// Makes samples of the first rows of every source; the first `count` of each are shown.
pub fn preview(
    job: &TokenizeJob,
    folders: &Folders,
    count: usize,
) -> Result<Preview, super::Error> {
    let tokenizer = tokenize::tokenizer(job, folders)?;
    let mut shown = Vec::new();
    let mut all: Vec<Sample> = Vec::new();
    for (number, source) in job.stage.sources.iter().enumerate() {
        let path = folders.input(&format!("rows.{number}"))?;
        let samples = look(source, path, &tokenizer, job.model.encoder_seq_length)?;
        for sample in samples.iter().take(count) {
            shown.push(show(sample, &source.tasks[sample.task].name, &tokenizer)?);
        }
        all.extend(samples);
    }
    let learned = |sample: &Sample| sample.learned.iter().skip(1).filter(|one| **one).count();
    let lengths: Vec<usize> =
        all.iter().filter(|sample| sample.teaches()).map(|sample| sample.ids.len()).collect();
    let packing = packing::pack(&lengths, job.model.encoder_seq_length, 0);
    Ok(Preview {
        samples: shown,
        seen: all.len(),
        tokens: all.iter().map(|sample| sample.ids.len()).sum(),
        learned: all.iter().map(learned).sum(),
        cut: all.iter().filter(|sample| sample.cut).count(),
        masked: all.iter().filter(|sample| !sample.teaches()).count(),
        packed: (packing.sequences.len(), packing.efficiency_millionths as f64 / 1e6),
    })
}

fn show(sample: &Sample, task: &str, tokenizer: &Tokenizer) -> Result<Shown, Error> {
    let token = |(place, id): (usize, &u32)| -> Result<Token, Error> {
        let text = tokenizer.decode(&[*id])?;
        let spelled = || tokenizer.piece(*id).unwrap_or_else(|| format!("<{id}>"));
        let text = if text.is_empty() { spelled() } else { text };
        // The first token stands after nothing: it is never a label.
        Ok(Token { id: *id, text, learned: place > 0 && sample.learned[place] })
    };
    Ok(Shown {
        task: task.to_owned(),
        split: sample.split.name(),
        tokens: sample.ids.iter().enumerate().map(token).collect::<Result<_, _>>()?,
        prompt_tokens: sample.prompt_ids,
        cut: sample.cut,
    })
}
