//! The train stage: a checkpoint and shards to a fine-tuned checkpoint.

use super::watch::Watcher;
use super::{Circumstances, Folders, Outcome, Refusal, convert, evaluation};
use crate::base::digest::files_below;
use crate::checkpoint::native::Checkpoint;
use crate::data::feed::{self, Blend, Feed, Ordering};
use crate::data::sampler;
use crate::data::stream::StreamOptions;
use crate::engine::resuming;
use crate::engine::training::{self, CHECKPOINT_FOLDER, Finished, Run};
use crate::engine::watch::Watch;
use crate::spec::event::{Event, Sink};
use crate::spec::job::{DataSource, Split, TrainJob};
use crate::spec::optimization::Precision;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::{fs, io};

/// Name of the `.nemo` file in the output.
const NEMO_FILE: &str = "model.nemo";

/// Why train failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The data cannot be opened.
    #[error("cannot open the {split} data")]
    Data {
        /// Which split.
        split: &'static str,
        /// Why.
        source: feed::Error,
    },
    /// The metrics of validations.
    #[error("cannot prepare `validate`")]
    Validate(#[from] evaluation::Error),
    /// Training failed.
    #[error(transparent)]
    Training(#[from] training::Error),
    /// The `.nemo` file.
    #[error("cannot write {NEMO_FILE}")]
    Nemo(#[from] convert::Error),
    /// The tokenizer cannot be copied.
    #[error("cannot copy {path}")]
    Copy {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Trains, and writes `checkpoint/`, `metrics.jsonl` and the data's `tokenizer/`. Of several nodes
/// each calls this; apart from their part of checkpoints, node 0 writes.
pub fn run(
    job: &TrainJob,
    folders: &Folders,
    (sink, stop): (&dyn Sink, &AtomicBool),
    circumstances: &Circumstances,
) -> Result<Outcome, super::Error> {
    let (fault, nodes) = (circumstances.fault, circumstances.nodes.as_ref());
    let writes = nodes.is_none_or(|nodes| nodes.leads());
    training::check_is_built(job).map_err(Error::from)?;
    let start = folders.input("model")?;
    let data = open(job, folders, Split::Train)?;
    let validation = open_validation(job, folders, sink)?;
    if writes {
        copy_tokenizer(folders)?;
    }
    let watcher = Watcher::prepare(job, folders, sink, stop)?;
    let watch = watcher.as_ref().map(|watcher| watcher as &dyn Watch);
    let (backend, output) = (folders.backend, folders.output.as_path());
    let resume = folders.inputs.get("resume").map(PathBuf::as_path);
    let run = Run { job, start, resume, backend, output, data, validation, watch, fault, nodes };
    match training::train(run, sink, stop) {
        Ok(finished) => {
            if writes {
                write_nemo(job, output, sink)?;
            }
            Ok(Outcome { facts: facts(&finished) })
        }
        Err(training::Error::Stopped { step }) => {
            Err(super::Error::Stopped(format!("step {step}; the next run goes on from there")))
        }
        Err(error) => Err(Error::Training(error).into()),
    }
}

/// Writes `model.nemo` of the finished checkpoint, if the job asks for one: at the layout of the
/// training, in bf16 where that is what the parameters were.
fn write_nemo(job: &TrainJob, output: &Path, sink: &dyn Sink) -> Result<(), Error> {
    let Some(file) = job.stage.nemo else { return Ok(()) };
    let target = output.join(NEMO_FILE);
    if target.exists() {
        fs::remove_file(&target).map_err(|source| Error::Copy { path: target.clone(), source })?;
    }
    let settings = convert::Settings {
        target: convert::Target::Nemo,
        tensor: job.trainer.degrees.tensor,
        pipeline: job.trainer.degrees.pipeline,
        bf16: Some(job.model.megatron_amp_o2 && job.trainer.precision == Precision::Bf16),
        divisible_by: file.make_vocab_size_divisible_by,
    };
    convert::run(&output.join(CHECKPOINT_FOLDER), &target, &settings, sink)?;
    Ok(())
}

/// Why training cannot continue from the checkpoint at `path`, if it cannot.
pub(super) fn refusal(job: &TrainJob, path: &Path) -> Option<Refusal> {
    let reason = match Checkpoint::open(path) {
        Ok(checkpoint) => resuming::why_not(job, &checkpoint)?,
        Err(error) => error.to_string(),
    };
    let (key, shown) = ("model.resume_from_checkpoint".to_owned(), path.display());
    let help = "name a checkpoint that a training of sft-run has kept (`exp_manager` has the keys), \
                or start from weights with `restore_from_path`";
    let what = format!("a checkpoint to continue from; `{shown}` is none: {reason}");
    Some(Refusal { what, key, help: help.to_owned() })
}

/// Everything in `job` that this build cannot do.
pub(super) fn refusals(job: &TrainJob) -> Vec<Refusal> {
    let refusals = training::not_built(job).into_iter().map(|found| Refusal {
        what: format!("training {}, which is not built", found.how),
        key: found.key.to_owned(),
        help: found.help.to_owned(),
    });
    refusals.collect()
}

/// The sequences of `split` in the order of the run.
pub(super) fn open(job: &TrainJob, folders: &Folders, split: Split) -> Result<Feed, super::Error> {
    let ordering = Ordering {
        seed: job.model.seed,
        shuffle: job.model.data.shuffle && split == Split::Train,
        seq_length: job.model.encoder_seq_length,
    };
    let opened = match &job.model.data.source {
        DataSource::Shards => Feed::shards(folders.input("data")?, split, ordering),
        DataSource::Prefixes { weights, splits } => {
            let input = |number| folders.input(&format!("prefix.{number}")).map(Path::to_owned);
            let prefixes = (0..weights.len()).map(input).collect::<Result<Vec<_>, _>>()?;
            let options = stream_options(job);
            let blend = Blend { prefixes: &prefixes, weights, splits: *splits, options };
            Feed::prefixes(&blend, split, ordering)
        }
    };
    Ok(opened.map_err(|source| Error::Data { split: split.name(), source })?)
}

fn stream_options(job: &TrainJob) -> StreamOptions {
    let data = &job.model.data;
    StreamOptions {
        seq_length: job.model.encoder_seq_length,
        reset_position_ids: data.reset_position_ids,
        reset_attention_mask: data.reset_attention_mask,
        eod_mask_loss: data.eod_mask_loss,
    }
}

/// The validation split, if the recipe looks at it and it holds anything.
fn open_validation(
    job: &TrainJob,
    folders: &Folders,
    sink: &dyn Sink,
) -> Result<Option<Feed>, super::Error> {
    if job.trainer.val_check_interval == 0 || job.trainer.limit_val_batches == Some(0) {
        return Ok(None);
    }
    match open(job, folders, Split::Validation) {
        Err(super::Error::Train(Error::Data {
            source: feed::Error::Sampler(sampler::Error::Empty(_)),
            ..
        })) => {
            let text = "no validation: the validation split is empty".to_owned();
            sink.emit(Event::Note { text });
            Ok(None)
        }
        opened => Ok(Some(opened?)),
    }
}

fn facts(finished: &Finished) -> BTreeMap<String, f64> {
    let mut facts = BTreeMap::from([
        ("steps".to_owned(), finished.progress.step as f64),
        ("consumed_samples".to_owned(), finished.progress.consumed_samples as f64),
    ]);
    let losses =
        [("reduced_train_loss", finished.train_loss), ("val_loss", finished.validation_loss)];
    facts.extend(losses.into_iter().filter_map(|(name, loss)| Some((name.to_owned(), loss?))));
    facts
}

/// Copies `tokenizer/` of the data, so that the checkpoint can be used with nothing else.
fn copy_tokenizer(folders: &Folders) -> Result<(), Error> {
    let Some(data) = folders.inputs.get("data") else { return Ok(()) };
    let from = data.join("tokenizer");
    if !from.is_dir() {
        return Ok(());
    }
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Copy { path, source }
    };
    let to = folders.output.join("tokenizer");
    for (name, path) in files_below(&from).map_err(failed(&from))? {
        let target = to.join(name);
        let folder = target.parent().unwrap_or(&to);
        fs::create_dir_all(folder).map_err(failed(folder))?;
        fs::copy(&path, &target).map_err(failed(&path))?;
    }
    Ok(())
}
