//! One rank's run through the training loop: steps, validations, checkpoints.
//!
//! All ranks go the same way; the first one writes the journal and tells the events.

use super::early_stopping::Patience;
use super::journal::{Journal, Last};
use super::keeping::Keeper;
use super::resuming;
use super::saving::{self, Copies, Saver, Saving};
use super::state::{Begin, share};
use super::step::{Outcome, Trainer};
use super::training::{CHECKPOINT_FOLDER, Error, Finished, METRICS_FILE, Run, io_error};
use super::validation;
use crate::checkpoint::manifest::{Header, Progress, Training};
use crate::checkpoint::snapshot::Snapshot;
use crate::data::feed::Feed;
use crate::data::sampler::Share;
use crate::parallel::mesh::Mesh;
use crate::spec::event::{Event, Sink, StepMetrics, ValidationMetrics};
use crate::spec::job::{Monitor, RESUME_FOLDER};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// A run under way.
pub(super) struct Session<'a> {
    run: &'a Run<'a>,
    copies: &'a Copies,
    trainer: Trainer,
    share: Share,
    data: Feed,
    validation: Option<Feed>,
    progress: Progress,
    /// Where this process began.
    first_step: u64,
    sink: &'a dyn Sink,
    /// That of the first rank of each node.
    saver: Option<Saver>,
    /// The first rank's.
    recorder: Option<Recorder>,
    train_loss: Option<f64>,
    validation_loss: Option<f64>,
    /// Metrics of the last validation; on the first rank.
    metrics: BTreeMap<String, f64>,
    /// On the first rank, which has the journal of earlier validations.
    patience: Option<Patience<'a>>,
}

/// Where numbers and checkpoints go: the files and the events, which only the first rank writes.
struct Recorder {
    journal: Journal,
    keeper: Option<Keeper>,
}

impl<'a> Session<'a> {
    /// The run where it begins, on one rank.
    pub(super) fn open(
        run: &'a Run<'a>,
        begin: &Begin,
        copies: &'a Copies,
        (mesh, sink): (Mesh, &'a dyn Sink),
    ) -> Result<Session<'a>, Error> {
        let progress = begin.progress;
        let (mut recorder, mut last) = (None, Last::default());
        if mesh.rank == 0 {
            let path = run.output.join(METRICS_FILE);
            let opened = Journal::open(&path, progress.step).map_err(io_error(&path))?;
            let keeper = Keeper::open(run.job, run.output, begin.resumed());
            let keeper = keeper.map_err(io_error(run.output))?;
            last = opened.1;
            recorder = Some(Recorder { journal: opened.0, keeper });
        }
        let rule = run.job.stage.early_stopping.as_ref().filter(|_| recorder.is_some());
        let path = run.output.join(METRICS_FILE);
        let patience = rule.map(|rule| Patience::new(rule).replay(&path)).transpose();
        Ok(Session {
            patience: patience.map_err(io_error(&path))?,
            run,
            copies,
            trainer: begin.trainer(run.job, &mesh)?.with_fault(run.fault),
            share: share(run.job, &mesh)?,
            data: run.data.clone(),
            validation: run.validation.clone(),
            progress,
            first_step: progress.step,
            sink,
            saver: mesh.leads_node().then(Saver::default),
            recorder,
            train_loss: last.train_loss,
            validation_loss: last.validation_loss,
            metrics: last.metrics,
        })
    }

    /// Steps done so far.
    pub(super) fn step_done(&self) -> u64 {
        self.progress.step
    }

    /// Trains to the end, or to the end of the step in which `stop` is set on any rank, whose state
    /// is saved; whether it came to the end.
    pub(super) fn go_on(&mut self, stop: &AtomicBool) -> Result<bool, Error> {
        let trainer = &self.run.job.trainer;
        let (last, every) = (trainer.max_steps, self.run.job.stage.checkpoint_every);
        let interval = trainer.val_check_interval;
        while self.progress.step < last && !self.stops_early()? {
            self.step()?;
            let step = self.progress.step;
            if interval > 0 && (step.is_multiple_of(interval) || step == last) {
                self.validate()?;
            }
            let stopping = self.anybody(stop.load(Ordering::Relaxed))?;
            if step < last && (stopping || (every > 0 && step.is_multiple_of(every))) {
                self.save_for_resuming()?;
            }
            if let Some(saver) = &mut self.saver {
                if stopping { saver.wait(self.sink)? } else { saver.poll(self.sink)? }
            }
            if step < last && stopping {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether early stopping ends the run here.
    fn stops_early(&self) -> Result<bool, Error> {
        if self.run.job.stage.early_stopping.is_none() {
            return Ok(false);
        }
        let here = self.patience.as_ref().is_some_and(Patience::stops);
        if here {
            let text = format!("stopped early after step {}", self.progress.step);
            self.sink.emit(Event::Note { text });
        }
        self.anybody(here)
    }

    /// Whether it is so on any rank.
    fn anybody(&self, here: bool) -> Result<bool, Error> {
        let number = if here { 1.0 } else { 0.0 };
        Ok(self.trainer.mesh.world.sum_numbers(&[number])?[0] > 0.0)
    }

    fn step(&mut self) -> Result<(), Error> {
        let started = Instant::now();
        let (share, consumed) = (self.share, self.progress.consumed_samples);
        let data = &mut self.data;
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
        let Some(Recorder { journal, .. }) = &mut self.recorder else { return Ok(()) };
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
        journal.trace(&metrics).map_err(io_error(&path))?;
        if step.is_multiple_of(trainer.log_every_n_steps.max(1)) || step == trainer.max_steps {
            journal.step(&metrics).map_err(io_error(&path))?;
        }
        self.sink.emit(Event::Step(metrics));
        Ok(())
    }

    fn validate(&mut self) -> Result<(), Error> {
        let job = self.run.job;
        let Some(feed) = &mut self.validation else { return Ok(()) };
        let count = feed.count() as u64;
        let limit = job.trainer.limit_val_batches;
        let global = job.model.global_batch_size as u64;
        let sequences = limit.map_or(count, |limit| count.min(limit.saturating_mul(global)));
        let micro = job.model.micro_batch_size;
        let val_loss = validation::loss(&self.trainer, feed, sequences, micro)?;
        let (Trainer { model, mesh, .. }, step) = (&self.trainer, self.progress.step);
        let measured = self.run.watch.map(|watch| watch.measure(model, mesh, step));
        let measured = measured
            .transpose()
            .map_err(|source| Error::Watch { step, source })?
            .unwrap_or_default();
        self.validation_loss = Some(val_loss);
        let Progress { step, consumed_samples } = self.progress;
        let Some(Recorder { journal, .. }) = &mut self.recorder else { return Ok(()) };
        let metrics = ValidationMetrics { step, consumed_samples, val_loss, metrics: measured };
        let path = self.run.output.join(METRICS_FILE);
        journal.validation(&metrics).map_err(io_error(&path))?;
        if let Some(patience) = &mut self.patience {
            patience.see(&metrics);
        }
        self.metrics.clone_from(&metrics.metrics);
        self.sink.emit(Event::Validation(metrics));
        Ok(())
    }

    /// Saves the state under the step's number, beside the training.
    fn save_for_resuming(&mut self) -> Result<(), Error> {
        let name = format!("step-{:08}", self.progress.step);
        let saving = self.saving(self.run.output.join(RESUME_FOLDER).join(name))?;
        if let (Some(saving), Some(saver)) = (saving, &mut self.saver) {
            saver.start(saving);
        }
        Ok(())
    }

    /// A copy of the state of this node's ranks, which the first of them gets, after everything that
    /// was logged has reached the disk.
    fn saving(&mut self, target: PathBuf) -> Result<Option<Saving>, Error> {
        let began = Instant::now();
        if let Some(saver) = &mut self.saver {
            saver.wait(self.sink)?;
        }
        if let Some(Recorder { journal, .. }) = &mut self.recorder {
            let path = self.run.output.join(METRICS_FILE);
            journal.sync().map_err(io_error(&path))?;
        }
        // The others wait too, so that at most one copy is in memory.
        self.trainer.mesh.world.barrier()?;
        let Some(files) = saving::collect(&self.trainer, self.copies)? else { return Ok(None) };
        let header = self.header()?;
        let score = header.training.as_ref().and_then(|training| training.score);
        let keeper = self.recorder.as_mut().and_then(|recorder| recorder.keeper.as_mut());
        let keep = keeper.and_then(|keeper| keeper.offer(self.progress, score?));
        let nodes = self.trainer.mesh.nodes.clone();
        Ok(Some(Saving { snapshot: Snapshot { header, files }, target, began, keep, nodes }))
    }

    /// What the checkpoint is, apart from its tensors.
    fn header(&mut self) -> Result<Header, Error> {
        Ok(Header {
            architecture: self.run.job.model.architecture.clone(),
            progress: self.progress,
            layout: self.trainer.mesh.degrees,
            training: Some(self.training()?),
        })
    }

    /// What a checkpoint made now says of the training.
    fn training(&mut self) -> Result<Training, Error> {
        let job = self.run.job;
        let score = match job.stage.keep.as_ref().map(|keep| &keep.monitor) {
            Some(Monitor::ValLoss) => self.validation_loss,
            Some(Monitor::ReducedTrainLoss) => self.train_loss,
            Some(Monitor::Metric(name)) => self.metrics.get(name).copied(),
            None => None,
        };
        let training = resuming::training(job, self.progress, score, &mut self.data)?;
        Ok(Training { loss_scale: self.trainer.loss_scale(), ..training })
    }

    /// The end: writes the last checkpoint and removes those that were there for resuming.
    pub(super) fn finish(mut self) -> Result<Finished, Error> {
        let target = self.run.output.join(CHECKPOINT_FOLDER);
        let exists = self.anybody(self.recorder.is_some() && target.exists())?;
        // The best of a run that was killed just before its end may stand there.
        if self.progress.step > self.first_step || !exists {
            let saving = self.saving(target.clone())?;
            if let Some(saved) = saving.map(|saving| saving.write(None)).transpose()?.flatten() {
                self.sink.emit(saved);
            }
        }
        if let Some(Recorder { keeper: Some(keeper), .. }) = &self.recorder {
            keeper.put_best(&target).map_err(io_error(&target))?;
        }
        let resume = self.run.output.join(RESUME_FOLDER);
        if self.recorder.is_some() && resume.exists() {
            std::fs::remove_dir_all(&resume).map_err(io_error(&resume))?;
        }
        let Session { progress, train_loss, validation_loss, .. } = self;
        Ok(Finished { progress, train_loss, validation_loss })
    }
}
