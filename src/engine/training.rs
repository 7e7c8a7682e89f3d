//! The training loop: steps, validations, checkpoints, and going on where an interrupted run stopped.

use super::journal::Journal;
use super::loss_scale::LossScaler;
use super::optimizer::OptimizerState;
use super::step::{self, Outcome, Settings, Trainer};
use super::validation;
use crate::checkpoint::manifest::{Progress, Training};
use crate::checkpoint::native::{self, Checkpoint};
use crate::checkpoint::whole::{self, State};
use crate::data::feed::{self, Feed};
use crate::data::sampler::{self, Share};
use crate::model::Model;
use crate::model::formats::Formats;
use crate::model::weights::Weights;
use crate::spec::event::{Event, Sink, StepMetrics, ValidationMetrics};
use crate::spec::job::TrainJob;
use crate::spec::optimization::LossScale;
use candle_core::{Device, Tensor};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Why training did not finish.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting of a later version.
    #[error("{0}")]
    NotBuilt(NotBuilt),
    /// The batch cannot be cut.
    #[error(transparent)]
    Cut(#[from] sampler::Error),
    /// A step failed.
    #[error(transparent)]
    Step(#[from] step::Error),
    /// A validation failed.
    #[error(transparent)]
    Validation(#[from] validation::Error),
    /// A checkpoint cannot be read or written.
    #[error(transparent)]
    Checkpoint(#[from] native::Error),
    /// The next step's data cannot be read.
    #[error(transparent)]
    Data(#[from] feed::Error),
    /// The optimizer's state cannot be made.
    #[error("cannot make the optimizer's state")]
    Tensor(#[from] candle_core::Error),
    /// A file of the output folder.
    #[error("cannot write {path}")]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The stop flag was set; the work is saved.
    #[error("stopped after step {step}; the next run goes on from there")]
    Stopped {
        /// Steps done.
        step: u64,
    },
}

/// What a run reads and where it writes.
#[derive(Debug)]
pub struct Run<'a> {
    /// The job.
    pub job: &'a TrainJob,
    /// The checkpoint whose weights training starts from.
    pub start: &'a Path,
    /// The output folder.
    pub output: &'a Path,
    /// The training data.
    pub data: Feed,
    /// The validation data, if it is looked at.
    pub validation: Option<Feed>,
}

/// Numbers of a finished run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Finished {
    /// Where training stands.
    pub progress: Progress,
    /// Loss of the last step of this process; none when there was nothing left to do.
    pub train_loss: Option<f64>,
    /// The last validation's loss in this process, if there was one.
    pub validation_loss: Option<f64>,
}

/// Name of the metrics file in the output folder.
pub const METRICS_FILE: &str = "metrics.jsonl";
/// Name of the finished checkpoint in the output folder.
pub const CHECKPOINT_FOLDER: &str = "checkpoint";
/// Folder of the checkpoints that an interrupted run goes on from.
const RESUME_FOLDER: &str = "resume";

/// Trains to the end, or to the end of the step in which `stop` is set.
pub fn train(run: Run<'_>, sink: &dyn Sink, stop: &AtomicBool) -> Result<Finished, Error> {
    check_is_built(run.job)?;
    let mut session = Session::open(run, sink)?;
    session.go_on(stop)?;
    session.finish()
}

/// Something that only later versions can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotBuilt {
    /// How the job wants to train: `in bf16`, `with 2 tensor-parallel ranks`.
    pub how: String,
    /// The recipe's key that asks for it.
    pub key: &'static str,
    /// What to set.
    pub help: &'static str,
}

impl fmt::Display for NotBuilt {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "training {} is not built: {}", self.how, self.help)
    }
}

/// Refuses what only later versions can do.
pub fn check_is_built(job: &TrainJob) -> Result<(), Error> {
    match not_built(job).into_iter().next() {
        Some(found) => Err(Error::NotBuilt(found)),
        None => Ok(()),
    }
}

/// Everything that `job` asks for and only later versions can do.
pub fn not_built(job: &TrainJob) -> Vec<NotBuilt> {
    let degrees = &job.trainer.degrees;
    let sizes = [
        (
            degrees.tensor,
            "tensor-parallel ranks",
            "model.tensor_model_parallel_size",
            "set model.tensor_model_parallel_size to 1",
        ),
        (
            degrees.pipeline,
            "pipeline stages",
            "model.pipeline_model_parallel_size",
            "set model.pipeline_model_parallel_size to 1",
        ),
        (
            degrees.data,
            "data-parallel replicas",
            "trainer.devices",
            "set trainer.devices and trainer.num_nodes to 1",
        ),
    ];
    let split = sizes.into_iter().filter(|(degree, ..)| *degree != 1);
    let split = split.map(|(degree, ranks, key, help)| NotBuilt {
        how: format!("with {degree} {ranks}"),
        key,
        help,
    });
    split.collect()
}

/// A trainer with the weights of checkpoint `path`, and with its moments when it goes on from there.
pub fn trainer(job: &TrainJob, path: &Path, resumes: bool) -> Result<(Trainer, Progress), Error> {
    let checkpoint = Checkpoint::open(path)?;
    let architecture = &job.model.architecture;
    let values = whole::read_weights(&checkpoint, architecture)?;
    let elements = values.len();
    let start = Tensor::from_vec(values, elements, &Device::Cpu)?;
    let formats = Formats::of(job.trainer.precision, job.model.megatron_amp_o2);
    let weights = Weights::placed(architecture, &start, formats, &Device::Cpu)?;
    let model = Model::new(architecture, weights)?.with_recompute(job.model.recompute);
    let optim = &job.model.optim;
    let header = &checkpoint.manifest().header;
    let loss_scale = header.training.as_ref().filter(|_| resumes);
    let loss_scale = loss_scale.and_then(|training| training.loss_scale);
    let (optimizer, progress) = if resumes {
        let moments = whole::read_moments(&checkpoint, architecture)?;
        let state = OptimizerState::with_moments(optim, model.weights(), &start, moments)?;
        (state, checkpoint.manifest().header.progress)
    } else {
        (OptimizerState::new(optim, model.weights(), &start)?, Progress::default())
    };
    let tokens = job.model.global_batch_size * job.model.encoder_seq_length;
    let scaler = |settings| LossScaler::new(settings, tokens, loss_scale);
    let settings = Settings {
        loss_scaler: job.model.loss_scaling.map(scaler),
        optimizer: optim.clone(),
        gradient_clip_val: job.trainer.gradient_clip_val,
        seed: job.model.seed,
    };
    Ok((Trainer::new(model, optimizer, settings), progress))
}

/// How the job's global batch is cut on one replica.
pub fn share(job: &TrainJob) -> Result<Share, Error> {
    let model = &job.model;
    Ok(Share::new(model.global_batch_size, model.micro_batch_size, 1, 0)?)
}

/// A run under way.
struct Session<'a> {
    run: Run<'a>,
    sink: &'a dyn Sink,
    trainer: Trainer,
    share: Share,
    progress: Progress,
    journal: Journal,
    train_loss: Option<f64>,
    validation_loss: Option<f64>,
}

impl<'a> Session<'a> {
    /// The run at its start, or where an interrupted one left off.
    fn open(run: Run<'a>, sink: &'a dyn Sink) -> Result<Session<'a>, Error> {
        let resumed = newest_checkpoint(run.output)?;
        let (trainer, progress) = match &resumed {
            Some(path) => trainer(run.job, path, true)?,
            None => trainer(run.job, run.start, false)?,
        };
        let path = run.output.join(METRICS_FILE);
        let journal = Journal::open(&path, progress.step).map_err(io_error(&path))?;
        if resumed.is_some() {
            sink.emit(Event::Resumed { step: progress.step });
        }
        Ok(Session {
            share: share(run.job)?,
            run,
            sink,
            trainer,
            progress,
            journal,
            train_loss: None,
            validation_loss: None,
        })
    }

    fn go_on(&mut self, stop: &AtomicBool) -> Result<(), Error> {
        let trainer = &self.run.job.trainer;
        let (last, every) = (trainer.max_steps, self.run.job.stage.checkpoint_every);
        let interval = trainer.val_check_interval;
        while self.progress.step < last {
            self.step()?;
            let step = self.progress.step;
            if interval > 0 && (step.is_multiple_of(interval) || step == last) {
                self.validate()?;
            }
            let stopping = stop.load(Ordering::Relaxed);
            if step < last && (stopping || (every > 0 && step.is_multiple_of(every))) {
                self.save_for_resuming()?;
            }
            if step < last && stopping {
                return Err(Error::Stopped { step });
            }
        }
        Ok(())
    }

    fn step(&mut self) -> Result<(), Error> {
        let started = Instant::now();
        let (share, consumed) = (self.share, self.progress.consumed_samples);
        let data = &mut self.run.data;
        let next = |number| data.micro_batch(share.numbers(consumed, number));
        let outcome = self.trainer.step(self.progress.step, share.micro_batches(), next)?;
        self.progress.step += 1;
        self.progress.consumed_samples += share.global_batch_size() as u64;
        self.train_loss = Some(outcome.loss);
        self.report(&outcome, started.elapsed().as_secs_f64())
    }

    fn report(&mut self, outcome: &Outcome, seconds: f64) -> Result<(), Error> {
        let Progress { step, consumed_samples } = self.progress;
        let trainer = &self.run.job.trainer;
        let metrics = StepMetrics {
            step,
            consumed_samples,
            reduced_train_loss: outcome.loss,
            lr: outcome.learning_rate,
            grad_norm: Some(outcome.grad_norm).filter(|norm| norm.is_finite()),
            loss_scale: outcome.loss_scale,
            tokens: outcome.tokens,
            learned_tokens: outcome.learned_tokens,
            tokens_per_second: outcome.tokens as f64 / seconds,
        };
        let path = self.run.output.join(METRICS_FILE);
        self.journal.trace(&metrics).map_err(io_error(&path))?;
        if step.is_multiple_of(trainer.log_every_n_steps.max(1)) || step == trainer.max_steps {
            self.journal.step(&metrics).map_err(io_error(&path))?;
        }
        self.sink.emit(Event::Step(metrics));
        Ok(())
    }

    fn validate(&mut self) -> Result<(), Error> {
        let job = self.run.job;
        let Some(feed) = &mut self.run.validation else { return Ok(()) };
        let count = feed.count() as u64;
        let limit = job.trainer.limit_val_batches;
        let global = job.model.global_batch_size as u64;
        let sequences = limit.map_or(count, |limit| count.min(limit.saturating_mul(global)));
        let micro = job.model.micro_batch_size;
        let val_loss = validation::loss(&self.trainer.model, feed, sequences, micro)?;
        self.validation_loss = Some(val_loss);
        let Progress { step, consumed_samples } = self.progress;
        let metrics = ValidationMetrics { step, consumed_samples, val_loss };
        let path = self.run.output.join(METRICS_FILE);
        self.journal.validation(&metrics).map_err(io_error(&path))?;
        self.sink.emit(Event::Validation(metrics));
        Ok(())
    }

    /// Saves the state under the step's number; the one before goes when the new one is whole.
    fn save_for_resuming(&mut self) -> Result<(), Error> {
        let folder = self.run.output.join(RESUME_FOLDER);
        let before = checkpoints(&folder)?;
        self.save(&folder.join(format!("step-{:08}", self.progress.step)))?;
        for path in before {
            std::fs::remove_dir_all(&path).map_err(io_error(&path))?;
        }
        Ok(())
    }

    fn save(&mut self, target: &Path) -> Result<(), Error> {
        let path = self.run.output.join(METRICS_FILE);
        self.journal.sync().map_err(io_error(&path))?;
        let scale = self.trainer.loss_scale();
        let training = Some(training(self.run.job, self.progress, &mut self.run.data, scale)?);
        let (model, optimizer) = (&self.trainer.model, &self.trainer.optimizer);
        let parameters = optimizer.parameters(model.weights());
        let state = State { model, parameters, moments: Some(optimizer.moments()), training };
        whole::save_state(target, &state, self.progress)?;
        Ok(())
    }

    fn finish(mut self) -> Result<Finished, Error> {
        let target = self.run.output.join(CHECKPOINT_FOLDER);
        if !target.exists() {
            self.save(&target)?;
        }
        let resume = self.run.output.join(RESUME_FOLDER);
        if resume.exists() {
            std::fs::remove_dir_all(&resume).map_err(io_error(&resume))?;
        }
        let Session { progress, train_loss, validation_loss, .. } = self;
        Ok(Finished { progress, train_loss, validation_loss })
    }
}

/// What a checkpoint after `progress` says of the training.
fn training(
    job: &TrainJob,
    progress: Progress,
    data: &mut Feed,
    loss_scale: Option<LossScale>,
) -> Result<Training, Error> {
    let goes_on = progress.step < job.trainer.max_steps;
    let from = progress.consumed_samples;
    let numbers = from..from + job.model.global_batch_size as u64;
    let next_batch = goes_on.then(|| data.digest(numbers)).transpose()?;
    let job_text = serde_json::to_value(job).unwrap_or_default();
    Ok(Training { seed: job.model.seed, job: job_text, next_batch, loss_scale })
}

/// The checkpoint of this output folder that is furthest on.
fn newest_checkpoint(output: &Path) -> Result<Option<PathBuf>, Error> {
    let finished = output.join(CHECKPOINT_FOLDER);
    if finished.exists() {
        return Ok(Some(finished));
    }
    Ok(checkpoints(&output.join(RESUME_FOLDER))?.pop())
}

/// Whole checkpoints in `folder`, by step.
fn checkpoints(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for entry in folder.read_dir().map_err(io_error(folder))? {
        let path = entry.map_err(io_error(folder))?.path();
        // A folder still being written is called `step-N.partial`.
        if path.extension().is_none() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { path, source }
}
