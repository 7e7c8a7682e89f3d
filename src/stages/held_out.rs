//! Samples of one split of a tokenize stage's output, chosen for evaluation.

use crate::base::digest::Digest;
use crate::data::indexed::{self, IndexedFile};
use crate::spec::job::EvaluateStage;
use serde::Deserialize;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Why samples cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line is not a sample.
    #[error("`{}` line {line} is not a sample", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Why.
        source: serde_json::Error,
    },
    /// The tokens cannot be read.
    #[error(transparent)]
    Tokens(#[from] indexed::Error),
    /// The two files do not belong together.
    #[error(
        "`{}` has {lines} samples, the token file beside it {sequences}: run tokenize again",
        path.display()
    )]
    Counts {
        /// The file of samples.
        path: PathBuf,
        /// Its lines.
        lines: usize,
        /// Sequences of the token file.
        sequences: usize,
    },
    /// No sample is chosen.
    #[error("split `{split}` has no samples{of_task}: see `split` and `task` of the stage")]
    Nothing {
        /// The split.
        split: &'static str,
        /// Names the task, when one is asked for.
        of_task: String,
    },
}

/// A sample to evaluate.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct HeldOut {
    pub(super) task: String,
    pub(super) prompt: String,
    pub(super) expected: String,
    /// All tokens: prompt, answer, end.
    pub(super) tokens: Vec<u32>,
    /// Whether each token is learned as a label.
    pub(super) learned: Vec<bool>,
    /// How many of the tokens stand before the answer.
    prompt_length: usize,
}

/// One line of `SPLIT.samples.jsonl`.
#[derive(Deserialize)]
struct Line {
    task: String,
    prompt: String,
    expected: String,
    prompt_tokens: usize,
}

impl HeldOut {
    /// The tokens before the answer; none when there are none, as in plain text, or when the answer
    /// was so long that the prompt was cut away.
    pub(super) fn prompt_tokens(&self) -> Option<&[u32]> {
        self.tokens.get(..self.prompt_length).filter(|prompt| !prompt.is_empty())
    }
}

/// The samples that `stage` chooses from the tokenize output `data`.
///
/// With a limit, those with the smallest hashes are taken, so that the choice depends on the samples
/// and not on where they stand; they come in the order of their hashes.
pub(super) fn read(data: &Path, stage: &EvaluateStage) -> Result<Vec<HeldOut>, Error> {
    let split = stage.split.name();
    let file = IndexedFile::open(&data.join(split))?;
    let path = data.join(format!("{split}.samples.jsonl"));
    let lines = read_lines(&path)?;
    if lines.len() != file.sequences() {
        let (lines, sequences) = (lines.len(), file.sequences());
        return Err(Error::Counts { path, lines, sequences });
    }
    let chosen = choose(lines, stage);
    if chosen.is_empty() {
        let of_task = stage.task.as_ref().map(|task| format!(" of task `{task}`"));
        return Err(Error::Nothing { split, of_task: of_task.unwrap_or_default() });
    }
    chosen.into_iter().map(|(index, line)| sample(&file, index, line)).collect()
}

fn read_lines(path: &Path) -> Result<Vec<Line>, Error> {
    let text = fs::read_to_string(path);
    let text = text.map_err(|source| Error::Read { path: path.to_owned(), source })?;
    let parse = |(index, line): (usize, &str)| {
        let at = |source| Error::Line { path: path.to_owned(), line: index + 1, source };
        serde_json::from_str(line).map_err(at)
    };
    text.lines().enumerate().map(parse).collect()
}

fn choose(lines: Vec<Line>, stage: &EvaluateStage) -> Vec<(usize, Line)> {
    let is_wanted = |line: &Line| stage.task.as_ref().is_none_or(|task| *task == line.task);
    let mut chosen: Vec<_> =
        lines.into_iter().enumerate().filter(|(_, line)| is_wanted(line)).collect();
    // Equal samples have equal hashes; their places decide between them.
    chosen.sort_by_cached_key(|(index, line)| {
        let parts = [&line.task, &line.prompt, &line.expected].map(String::as_str);
        (Digest::of_bytes(parts.join("\0").as_bytes()), *index)
    });
    chosen.truncate(stage.limit.unwrap_or(usize::MAX));
    chosen
}

fn sample(file: &IndexedFile, index: usize, line: Line) -> Result<HeldOut, Error> {
    Ok(HeldOut {
        task: line.task,
        prompt: line.prompt,
        expected: line.expected,
        tokens: file.sequence(index)?,
        learned: file.sequence_mask(index)?,
        prompt_length: line.prompt_tokens,
    })
}
