//! The shard stage: samples of each split to training sequences, packed or one by one.

use super::{Folders, Outcome};
use crate::data::indexed::{self, IndexedFile, Writer};
use crate::data::packing::{self, Packing};
use crate::data::tokenizer::{self, Tokenizer};
use crate::spec::event::{Event, Sink};
use crate::spec::job::{ShardJob, Split};
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

/// Why shard failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The tokenized data cannot be read.
    #[error(transparent)]
    Indexed(#[from] indexed::Error),
    /// The tokenizer cannot be opened or copied.
    #[error(transparent)]
    Tokenizer(#[from] tokenizer::Error),
    /// A shard cannot be written.
    #[error("cannot write `{}`: {source}", path.display())]
    Write {
        /// The file, without its extension.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A sample is longer than a training sequence.
    #[error(
        "a sample of {length} tokens does not fit a training sequence of {capacity}: tokenize again \
         with this model.encoder_seq_length"
    )]
    TooLong {
        /// Ids of the sample.
        length: usize,
        /// Inputs of a sequence.
        capacity: usize,
    },
}

/// Runs the stage.
pub fn run(
    job: &ShardJob,
    folders: &Folders,
    sink: &dyn Sink,
    stop: &AtomicBool,
) -> Result<Outcome, super::Error> {
    let data = folders.input("data")?;
    let tokenizer = Tokenizer::open(&data.join("tokenizer")).map_err(Error::from)?;
    let mut facts = BTreeMap::new();
    for (done, split) in Split::ALL.into_iter().enumerate() {
        if stop.load(Ordering::Relaxed) {
            return Err(super::Error::Stopped(format!("{done} of 3 splits")));
        }
        let samples = IndexedFile::open(&data.join(split.name())).map_err(Error::from)?;
        let target = folders.output.join(split.name());
        let packing = write_split(job, &samples, &target, tokenizer.vocab_size())?;
        let mut fact = |name: &str, value: f64| {
            facts.insert(format!("{}_{name}", split.name()), value);
        };
        fact("samples", samples.sequences() as f64);
        fact("sequences", packing.sequences.len() as f64);
        if !packing.sequences.is_empty() {
            fact("packing_efficiency", packing.efficiency_millionths as f64 / 1e6);
        }
        let (task, unit) = ("sharding".to_owned(), "splits".to_owned());
        sink.emit(Event::Progress { task, done: done as u64 + 1, total: 3, unit });
    }
    tokenizer.save(&folders.output.join("tokenizer")).map_err(Error::from)?;
    Ok(Outcome { facts })
}

/// Writes one split: a document per training sequence.
fn write_split(
    job: &ShardJob,
    samples: &IndexedFile,
    target: &std::path::Path,
    vocab_size: usize,
) -> Result<Packing, Error> {
    let capacity = job.model.encoder_seq_length;
    let lengths: Vec<_> = (0..samples.sequences()).map(|at| samples.sequence_length(at)).collect();
    if let Some(length) = lengths.iter().copied().find(|length| *length > capacity + 1) {
        return Err(Error::TooLong { length, capacity });
    }
    let packing = if job.stage.packing {
        packing::pack(&lengths, capacity, job.model.seed)
    } else {
        packing::apart(&lengths, capacity)
    };
    let fail = |source| Error::Write { path: target.to_path_buf(), source };
    let mut writer = Writer::create(target, vocab_size).map_err(fail)?;
    for sequence in &packing.sequences {
        for sample in sequence {
            let (ids, mask) = (samples.sequence(*sample)?, samples.sequence_mask(*sample)?);
            writer.sequence(&ids, &mask).map_err(fail)?;
        }
        writer.end_document();
    }
    writer.finish().map_err(fail)?;
    Ok(packing)
}
