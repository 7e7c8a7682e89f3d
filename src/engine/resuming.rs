//! Where a run goes on: its own newest checkpoint that is whole, or another run's that is named.

use super::saving::checkpoints;
use super::training::{CHECKPOINT_FOLDER, Error, io_error};
use crate::base::atomic_file;
use crate::checkpoint::manifest::{Kind, Progress, Training};
use crate::checkpoint::native::{self, Checkpoint};
use crate::checkpoint::whole;
use crate::data::feed::Feed;
use crate::layout::frozen;
use crate::layout::parameters::table;
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

/// The checkpoint of another run at `path` that `job` is to continue from, at any layout.
///
/// What `job` would not continue as that run is refused: other data, or another model.
pub(super) fn named(job: &TrainJob, path: &Path, data: &mut Feed) -> Result<Checkpoint, Error> {
    let checkpoint = verified(path)?;
    let wrong = |reason: String| Error::Resume { path: path.to_owned(), reason };
    if let Some(reason) = why_not(job, &checkpoint) {
        return Err(wrong(reason));
    }
    match check_data(&checkpoint, data, job.model.global_batch_size as u64) {
        Err(Error::OtherData { step }) => Err(wrong(format!(
            "the data of step {step} is not what that training was to read next: take its data, \
             global_batch_size and seed, or start from its weights (`restore_from_path`)"
        ))),
        checked => checked.map(|()| checkpoint),
    }
}

/// Why training by `job` cannot continue from `checkpoint`, as far as its manifest tells.
pub fn why_not(job: &TrainJob, checkpoint: &Checkpoint) -> Option<String> {
    let manifest = checkpoint.manifest();
    if manifest.header.training.is_none() {
        let what = "it holds weights only: start from them with `restore_from_path`";
        return Some(what.to_owned());
    }
    let (step, last) = (manifest.header.progress.step, job.trainer.max_steps);
    if step >= last {
        return Some(format!("it stands after step {step}, and trainer.max_steps is {last}"));
    }
    let found = &manifest.header.architecture;
    if let Err(error) = whole::check_shape(checkpoint.folder(), found, &job.model.architecture) {
        return Some(error.to_string());
    }
    let lacks = |name: &String| {
        let learns = !frozen::names(&job.model.frozen, name);
        learns && !manifest.tensors.contains_key(&Kind::FirstMoment.name(name))
    };
    let mut names = table(found).into_iter().map(|parameter| parameter.name);
    let name = names.find(lacks)?;
    Some(format!("`{name}` was frozen in that training, and is to learn in this one"))
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
