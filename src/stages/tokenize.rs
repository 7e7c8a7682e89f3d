//! The tokenize stage: rows to token files per split, and the texts of the samples beside them.

use super::{Folders, Outcome};
use crate::base::atomic_file;
use crate::base::numbers::count;
use crate::data::indexed::Writer;
use crate::data::rows;
use crate::data::samples::{self, Sample, SampleMaker};
use crate::data::tokenizer::{self, Tokenizer};
pub use crate::data::tokenizer::{TrainRequest, TrainText};
use crate::spec::event::{Event, Sink};
use crate::spec::job::{
    Format, RowSource, Split, SplitRule, TokenizeJob, TokenizeStage, TokenizerKind,
};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// The share of samples that may be cut without a word.
const MOST_CUT: f64 = 0.01;

/// Why tokenize failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The tokenizer cannot be used.
    #[error(transparent)]
    Tokenizer(#[from] tokenizer::Error),
    /// Rows cannot be used.
    #[error(transparent)]
    Rows(#[from] rows::Error),
    /// A task cannot be used.
    #[error(transparent)]
    Samples(#[from] samples::Error),
    /// The output cannot be written.
    #[error("cannot write `{}`: {source}", path.display())]
    Write {
        /// The file or its prefix.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A file of rows holds none.
    #[error("`{}` has no rows: fill it, or take it out of the sources", .0.display())]
    NoRows(PathBuf),
    /// The rows give nothing to learn from.
    #[error("no row gives a sample for training: check `split` and `share` of the sources")]
    NothingToTrain,
}

/// Runs the stage.
pub fn run(
    job: &TokenizeJob,
    folders: &Folders,
    sink: &dyn Sink,
    stop: &AtomicBool,
) -> Result<Outcome, super::Error> {
    let tokenizer = tokenizer(job, folders)?;
    let paths: Vec<&Path> = (0..job.stage.sources.len())
        .map(|source| folders.input(&format!("rows.{source}")))
        .collect::<Result<_, _>>()?;
    let mut work = Work::begin(&paths, &folders.output, &tokenizer, sink)?;
    for (source, path) in job.stage.sources.iter().zip(paths) {
        work.source(source, path, job.model.encoder_seq_length, stop)?;
        if stop.load(Ordering::Relaxed) {
            return Err(super::Error::Stopped(format!("{} rows", count(work.rows))));
        }
    }
    work.tell_of_empty_splits(&job.stage.sources);
    work.tell_of_cut_samples(job);
    let facts = work.finish()?;
    let saved = as_in_samples(tokenizer, &job.stage).save(&folders.output.join("tokenizer"));
    saved.map_err(Error::from)?;
    Ok(Outcome { facts })
}

/// The recipe's tokenizer, with the recipe's chat template.
pub(super) fn tokenizer(job: &TokenizeJob, folders: &Folders) -> Result<Tokenizer, Error> {
    let tokenizer = Tokenizer::load(job.model.tokenizer, &folders.inputs)?;
    Ok(tokenizer.with_chat_template(job.model.chat_template.clone()))
}

/// A tokenizer that begins prompts and renders conversations as all samples of `stage` have it: with
/// the beginning-of-sequence token, with the chat template and the day that their tasks share.
fn as_in_samples(tokenizer: Tokenizer, stage: &TokenizeStage) -> Tokenizer {
    let tasks = || stage.sources.iter().flat_map(|source| &source.tasks);
    let add_bos = !stage.sources.is_empty() && tasks().all(|task| task.add_bos);
    let mut chats = tasks().filter_map(|task| match &task.format {
        Format::Chat { template, date, .. } => Some((template.clone(), date.clone())),
        _ => None,
    });
    let first = chats.next();
    let shared = first.filter(|first| chats.all(|other| other == *first));
    let (template, date) = shared.unwrap_or_default();
    tokenizer.with_bos(add_bos).with_chat_template(template).with_chat_date(date)
}

/// Number of ids that the tokenizer in `files` can produce.
pub fn vocab_size(kind: TokenizerKind, files: &BTreeMap<String, PathBuf>) -> Result<usize, Error> {
    Ok(Tokenizer::load(kind, files)?.vocab_size())
}

/// Trains a byte-level BPE and writes it to `output`, a `tokenizer.json`; returns its number of ids.
pub fn train_tokenizer(request: &TrainRequest, output: &Path) -> Result<usize, Error> {
    Ok(tokenizer::train(request, output)?)
}

/// What is open while rows come in.
struct Work<'a> {
    tokenizer: &'a Tokenizer,
    sink: &'a dyn Sink,
    splits: BTreeMap<Split, SplitOutput>,
    rows: u64,
    all_rows: u64,
}

/// The files of one split, and what went into them.
struct SplitOutput {
    prefix: PathBuf,
    writer: Writer,
    /// Lines of `.samples.jsonl`.
    lines: Vec<u8>,
    counts: Counts,
}

#[derive(Default)]
struct Counts {
    samples: u64,
    tokens: u64,
    learned: u64,
    longest: usize,
    cut: u64,
    /// Samples left out because nothing in them is learned.
    empty: u64,
    /// Those of them that were cut.
    cut_empty: u64,
}

impl Counts {
    fn facts(&self) -> Vec<(&'static str, f64)> {
        let mut facts = vec![
            ("samples", self.samples as f64),
            ("tokens", self.tokens as f64),
            ("learned_tokens", self.learned as f64),
            ("longest_sample", self.longest as f64),
        ];
        // Shown only when there is something to know.
        let rare = [("cut_samples", self.cut), ("empty_samples", self.empty)];
        let rare = rare.into_iter().filter(|(_, count)| *count > 0);
        facts.extend(rare.map(|(name, count)| (name, count as f64)));
        facts
    }
}

impl<'a> Work<'a> {
    fn begin(
        paths: &[&Path],
        output: &Path,
        tokenizer: &'a Tokenizer,
        sink: &'a dyn Sink,
    ) -> Result<Work<'a>, Error> {
        let mut all_rows = 0;
        for path in paths {
            let rows = rows::count(path)? as u64;
            if rows == 0 {
                return Err(Error::NoRows(path.to_path_buf()));
            }
            all_rows += rows;
        }
        let mut splits = BTreeMap::new();
        for split in Split::ALL {
            let prefix = output.join(split.name());
            let writer = Writer::create(&prefix, tokenizer.vocab_size())
                .map_err(|source| Error::Write { path: prefix.clone(), source })?;
            let (lines, counts) = (Vec::new(), Counts::default());
            splits.insert(split, SplitOutput { prefix, writer, lines, counts });
        }
        Ok(Work { tokenizer, sink, splits, rows: 0, all_rows })
    }

    fn source(
        &mut self,
        source: &RowSource,
        path: &Path,
        max_length: usize,
        stop: &AtomicBool,
    ) -> Result<(), Error> {
        let maker = SampleMaker::new(source, self.tokenizer, max_length)?;
        let mut failed = None;
        let take = |chunk: Vec<Vec<Sample>>| {
            self.rows += chunk.len() as u64;
            let samples = chunk.into_iter().flatten();
            failed = self.write(samples, source).err();
            failed.is_none() && !stop.load(Ordering::Relaxed)
        };
        rows::for_each_row(path, &|row| maker.samples(row), take)?;
        failed.map_or(Ok(()), Err)
    }

    fn write(
        &mut self,
        samples: impl Iterator<Item = Sample>,
        source: &RowSource,
    ) -> Result<(), Error> {
        for sample in samples {
            if let Some(split) = self.splits.get_mut(&sample.split) {
                split.write(&sample, &source.tasks[sample.task].name)?;
            }
        }
        let (task, unit) = ("tokenizing".to_owned(), "rows".to_owned());
        let (done, total) = (self.rows, self.all_rows);
        self.sink.emit(Event::Progress { task, done, total, unit });
        Ok(())
    }

    /// Splits that sources send rows to, and that got none: whoever reads them later finds nothing.
    fn tell_of_empty_splits(&self, sources: &[RowSource]) {
        for (split, output) in self.splits.iter().filter(|(split, _)| **split != Split::Train) {
            let gives = |source: &RowSource| match &source.split {
                SplitRule::All(all) => all == split,
                SplitRule::ByHash { validation, test, .. } => {
                    *(if *split == Split::Validation { validation } else { test }) > 0.0
                }
            };
            if output.counts.samples == 0 && sources.iter().any(gives) {
                let name = split.name();
                let text = format!(
                    "the {name} split got no sample: there is nothing to evaluate on it; raise its share in `split`"
                );
                self.sink.emit(Event::Note { text });
            }
        }
    }

    /// More than a few samples that were too long: what is learned is not what the rows say.
    fn tell_of_cut_samples(&self, job: &TokenizeJob) {
        let counts = || self.splits.values().map(|output| &output.counts);
        let cut: u64 = counts().map(|counts| counts.cut + counts.cut_empty).sum();
        let all: u64 = counts().map(|counts| counts.samples + counts.empty).sum();
        let share = cut as f64 / all.max(1) as f64;
        if share <= MOST_CUT {
            return;
        }
        let mut tasks = job.stage.sources.iter().flat_map(|source| &source.tasks);
        let is_nemo = tasks.any(|task| matches!(task.format, Format::Nemo { .. }));
        let settings = if is_nemo { " (`truncation_field` says where)" } else { "" };
        let text = format!(
            "{} of {} samples ({:.0} %) were longer than {} tokens and were cut{settings}: raise \
             model.encoder_seq_length, or what is less of model.data.seq_length and \
             model.data.train_ds.max_seq_length",
            count(cut),
            count(all),
            (100.0 * share).max(1.0),
            count(job.model.encoder_seq_length as u64),
        );
        self.sink.emit(Event::Note { text });
    }

    fn finish(self) -> Result<BTreeMap<String, f64>, Error> {
        let mut facts = BTreeMap::from([("rows".to_owned(), self.rows as f64)]);
        for (split, output) in self.splits {
            let counts = output.finish()?;
            if split == Split::Train && counts.samples == 0 {
                return Err(Error::NothingToTrain);
            }
            for (name, value) in counts.facts() {
                facts.insert(format!("{}_{name}", split.name()), value);
            }
        }
        Ok(facts)
    }
}

impl SplitOutput {
    fn write(&mut self, sample: &Sample, task: &str) -> Result<(), Error> {
        if !sample.teaches() {
            self.counts.empty += 1;
            self.counts.cut_empty += u64::from(sample.cut);
            return Ok(());
        }
        let written = self.writer.sequence(&sample.ids, &sample.learned);
        written.map_err(|source| Error::Write { path: self.prefix.clone(), source })?;
        self.writer.end_document();
        let line = serde_json::json!({
            "task": task,
            "prompt": sample.prompt,
            "expected": sample.expected,
            "prompt_tokens": sample.prompt_ids,
        });
        self.lines.extend_from_slice(line.to_string().as_bytes());
        self.lines.push(b'\n');
        self.counts.samples += 1;
        self.counts.tokens += sample.ids.len() as u64;
        self.counts.learned +=
            sample.learned.iter().skip(1).filter(|learned| **learned).count() as u64;
        self.counts.longest = self.counts.longest.max(sample.ids.len());
        self.counts.cut += u64::from(sample.cut);
        Ok(())
    }

    fn finish(self) -> Result<Counts, Error> {
        let path = self.prefix.with_extension("samples.jsonl");
        let written = self.writer.finish().and_then(|()| atomic_file::write(&path, &self.lines));
        written.map_err(|source| Error::Write { path, source })?;
        Ok(self.counts)
    }
}
