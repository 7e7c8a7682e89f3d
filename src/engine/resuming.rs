//! Where an interrupted run goes on: its newest checkpoint that is whole.

use super::saving::checkpoints;
use super::training::{CHECKPOINT_FOLDER, Error, io_error};
use crate::base::atomic_file;
use crate::checkpoint::manifest::{Progress, Training};
use crate::checkpoint::native::{self, Checkpoint};
use crate::data::feed::Feed;
use crate::spec::event::{Event, Sink};
use crate::spec::job::{RESUME_FOLDER, TrainJob};
use std::fs;
use std::path::Path;

/// The checkpoint in this output folder that is furthest on and whole, if there is one.
///
/// One that is damaged is named with what is wrong and removed; the one before it is used.
pub(super) fn newest(output: &Path, sink: &dyn Sink) -> Result<Option<Checkpoint>, Error> {
    atomic_file::remove_leftovers(output).map_err(io_error(output))?;
    let resume = output.join(RESUME_FOLDER);
    let mut candidates = checkpoints(&resume).map_err(io_error(&resume))?;
    candidates.extend(Some(output.join(CHECKPOINT_FOLDER)).filter(|path| path.exists()));
    while let Some(path) = candidates.pop() {
        let damage = match verified(&path) {
            Ok(checkpoint) => return Ok(Some(checkpoint)),
            Err(
                error @ (native::Error::Unusable { .. } | native::Error::NotACheckpoint { .. }),
            ) => error,
            Err(error) => return Err(error.into()),
        };
        let name = |path: &Path| path.file_name().unwrap_or_default().display().to_string();
        let next = candidates.last().map_or_else(
            || "there is none before it: training starts over".to_owned(),
            |before| format!("trying the one before, {}", name(before)),
        );
        sink.emit(Event::Note { text: format!("{damage}; {next}") });
        fs::remove_dir_all(&path).map_err(io_error(&path))?;
    }
    Ok(None)
}

fn verified(path: &Path) -> Result<Checkpoint, native::Error> {
    let checkpoint = Checkpoint::open(path)?;
    checkpoint.verify()?;
    Ok(checkpoint)
}

/// Refuses data whose next step is not the one that the checkpoint was to go on with.
pub(super) fn check_data(
    checkpoint: &Checkpoint,
    data: &mut Feed,
    batch: u64,
) -> Result<(), Error> {
    let header = &checkpoint.manifest().header;
    let Progress { step, consumed_samples } = header.progress;
    let Some(expected) = header.training.as_ref().and_then(|training| training.next_batch) else {
        return Ok(());
    };
    if data.digest(consumed_samples..consumed_samples + batch)? == expected {
        return Ok(());
    }
    Err(Error::OtherData { step: step + 1 })
}

/// What a checkpoint after `progress` says of the training.
pub(super) fn training(
    job: &TrainJob,
    progress: Progress,
    score: Option<f64>,
    data: &mut Feed,
) -> Result<Training, Error> {
    let from = progress.consumed_samples;
    let numbers = from..from + job.model.global_batch_size as u64;
    let goes_on = progress.step < job.trainer.max_steps;
    let next_batch = goes_on.then(|| data.digest(numbers)).transpose()?;
    let (seed, job) = (job.model.seed, job.decisive());
    Ok(Training { seed, job, next_batch, score, loss_scale: None })
}
