//! The walk itself: one stage after the other, each reused or run and committed.

use super::decide::{Decided, Decision, Previous, decide, known_inputs};
use super::reason::Reason;
use super::scope::Scope;
use super::{Error, Settings, publish};
use crate::artifacts::{
    Artifact, Claim, Found, Guard, Lock, LockedInput, LockedStage, Made, Standing, Work, lock,
};
use crate::base::digest::Digest;
use crate::base::step_trace;
use crate::plan::{Missing, Plan, Source, Stage, fingerprint};
use crate::spec::backend::Backend;
use crate::spec::event::{Event, Sink};
use crate::spec::job::Job;
use crate::stages::{self, Folders, Outcome};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How a job is done: [`stages::run`], or a stand-in in tests.
pub type Execute<'a> =
    dyn Fn(&Job, &Folders, &dyn Sink, &AtomicBool) -> Result<Outcome, stages::Error> + 'a;

/// What a finished run did.
#[derive(Clone, Debug)]
pub struct Report {
    /// The stages that took part, in order.
    pub stages: Vec<Done>,
    /// How the run stands to the lock file; none when a part of the plan was left out, which
    /// leaves the lock file alone.
    pub standing: Option<Standing>,
    /// Whether the lock file was written.
    pub lock_written: bool,
}

/// A stage of a finished run.
#[derive(Clone, Debug)]
pub struct Done {
    /// Its name.
    pub stage: String,
    /// Its kind.
    pub kind: &'static str,
    /// Whether it was reused or ran, and why.
    pub decision: Decision,
    /// Seconds it took; 0 when it was reused.
    pub seconds: f64,
    /// Its record and where its output lies in the cache.
    pub artifact: Artifact,
    /// Its checkpoint in the run folder, for a train stage.
    pub checkpoint: Option<PathBuf>,
}

/// Walks `plan`. Nothing is begun when something is missing.
///
/// When `stop` is set, the stage that runs ends at its next safe point and the walk with it.
pub fn run(
    plan: &Plan,
    settings: &Settings<'_>,
    execute: &Execute<'_>,
    sink: &dyn Sink,
    stop: &AtomicBool,
) -> Result<Report, Error> {
    let scope = Scope::new(plan, settings)?;
    if !plan.missing().is_empty() {
        return Err(Error::Missing(plan.missing().to_vec()));
    }
    let old = Lock::read(settings.lock)?;
    let previous = Previous::read(settings.store, settings.lock)?;
    let empty = Lock {
        version: lock::VERSION,
        environment: settings.environment.clone(),
        stages: BTreeMap::new(),
    };
    // What is known of stages that this walk does not reach stays known.
    let mut last = Lock { stages: previous.of(plan), ..empty.clone() };
    let mut walk = Walk {
        settings,
        execute,
        sink,
        stop,
        keeps_checkpoints: plan.keeps_checkpoints(),
        previous,
        outputs: BTreeMap::new(),
        new: empty,
    };
    let mut done = Vec::new();
    for stage in &scope.stages {
        done.push(walk.stage(stage, scope.forced.get(&stage.name).copied())?);
        last.stages.extend(walk.new.stages.clone());
        last.write(&settings.store.last_run(settings.lock))?;
    }
    settings.store.save()?;
    let whole = scope.stages.len() == plan.stages().len() && !settings.keep_lock;
    let standing = whole.then(|| walk.new.standing(old.as_ref()));
    let older = old.as_ref().is_some_and(|old| old.version < lock::VERSION);
    let lock_written = standing
        .as_ref()
        .is_some_and(|standing| walk.settle(standing) || (older && *standing == Standing::Same));
    if lock_written {
        walk.new.write(settings.lock)?;
    }
    Ok(Report { stages: done, standing, lock_written })
}

struct Walk<'a> {
    settings: &'a Settings<'a>,
    execute: &'a Execute<'a>,
    sink: &'a dyn Sink,
    stop: &'a AtomicBool,
    keeps_checkpoints: bool,
    previous: Previous,
    /// The outputs so far, by stage.
    outputs: BTreeMap<String, Artifact>,
    new: Lock,
}

impl Walk<'_> {
    fn stage(&mut self, stage: &Stage, forced: Option<&'static str>) -> Result<Done, Error> {
        let digests = self.outputs.iter().map(|(name, made)| (name.clone(), made.record.output));
        let inputs = known_inputs(stage, &digests.collect());
        let decided = decide(stage, &inputs, self.settings.store, &self.previous, forced);
        let started = Instant::now();
        let (decision, artifact) = match decided {
            Decided { artifact: Some(artifact), decision, .. } => {
                self.reused(stage, &artifact);
                (decision, artifact)
            }
            Decided { decision, fingerprint: Some(name), .. } => {
                self.make(stage, &inputs, (name, decision), forced)?
            }
            Decided { fingerprint: None, .. } => return Err(unknown_input(stage, &inputs)),
        };
        let seconds = if decision.runs() { started.elapsed().as_secs_f64() } else { 0.0 };
        if decision.runs() {
            let facts = artifact.record.facts.clone();
            self.sink.emit(Event::StageFinished { stage: stage.name.clone(), seconds, facts });
        }
        self.new.stages.insert(stage.name.clone(), locked(stage, &artifact));
        self.outputs.insert(stage.name.clone(), artifact.clone());
        self.output(stage, &artifact.output);
        let checkpoint = self.publish(stage, &artifact)?;
        let (name, kind) = (stage.name.clone(), stage.job.kind());
        Ok(Done { stage: name, kind, decision, seconds, artifact, checkpoint })
    }

    fn reused(&self, stage: &Stage, artifact: &Artifact) {
        self.sink.emit(Event::StageReused {
            stage: stage.name.clone(),
            kind: stage.job.kind().to_owned(),
            fingerprint: artifact.record.fingerprint.short(),
        });
    }

    /// Runs a stage, unless another process made its output while this one waited for it.
    fn make(
        &self,
        stage: &Stage,
        inputs: &BTreeMap<String, Digest>,
        (name, decision): (Digest, Decision),
        forced: Option<&'static str>,
    ) -> Result<(Decision, Artifact), Error> {
        let (store, kind) = (self.settings.store, stage.job.kind());
        let resume = stage.continues() && !self.settings.no_cache && forced.is_none();
        let guard = self.claim(stage, name, resume)?;
        let before = store.find(kind, name);
        if let (Found::Whole(artifact), None) = (&before, forced) {
            self.reused(stage, artifact);
            return Ok((Decision::Restore, (**artifact).clone()));
        }
        let work = store.begin(kind, name, guard, resume)?;
        self.started(stage, &decision);
        let artifact = self.work(stage, inputs, (work, resume)).inspect_err(|error| {
            if !matches!(error, Error::Stopped { .. }) {
                let (stage, error) = (stage.name.clone(), error.to_string());
                self.sink.emit(Event::StageFailed { stage, error });
            }
        })?;
        if let Found::Whole(before) = before
            && before.record.output != artifact.record.output
        {
            self.note(format!(
                "`{}` came out differently from the same settings and inputs ({} → {}): it is not \
                 reproducible",
                stage.name,
                before.record.output.short(),
                artifact.record.output.short()
            ));
        }
        Ok((decision, artifact))
    }

    fn work(
        &self,
        stage: &Stage,
        inputs: &BTreeMap<String, Digest>,
        (work, resume): (Work<'_>, bool),
    ) -> Result<Artifact, Error> {
        let folders = Folders {
            inputs: self.places(stage),
            backend: stage.backend.unwrap_or(Backend::Cpu),
            output: work.output().to_owned(),
        };
        let result = (self.execute)(&stage.job, &folders, self.sink, self.stop);
        let name = || stage.name.clone();
        let outcome = match result {
            Ok(outcome) => outcome,
            Err(error) => {
                let place = (stage, work.output(), resume);
                let error = Error::of_stage(self.settings, place, error);
                if !stage.continues() {
                    if !matches!(error, Error::Stopped { .. }) {
                        self.keep_failed(stage, work.output())?;
                    }
                    work.discard()?;
                }
                return Err(error);
            }
        };
        if let Some((input, path)) = self.changed_input(stage) {
            work.discard()?;
            return Err(Error::InputChanged { stage: name(), input, path });
        }
        let (job, inputs) = (fingerprint::settings(stage), inputs.clone());
        Ok(work.commit(Made { job, inputs, facts: outcome.facts })?)
    }

    /// Waits for the right to make `fingerprint`; a stop meanwhile says whether it is `resumable`.
    fn claim(&self, stage: &Stage, fingerprint: Digest, resumable: bool) -> Result<Guard, Error> {
        const PAUSE: Duration = Duration::from_millis(50);
        let mut told = false;
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return Err(Error::Stopped { stage: stage.name.clone(), resumable });
            }
            match self.settings.store.claim(fingerprint, &self.settings.holder)? {
                Claim::Mine(guard) => return Ok(guard),
                Claim::Theirs(holder) if !told => {
                    self.note(format!("waiting for `{}`: {holder} is making it", stage.name));
                    told = true;
                }
                Claim::Theirs(_) => {}
            }
            thread::sleep(PAUSE);
        }
    }

    fn started(&self, stage: &Stage, decision: &Decision) {
        let reasons: &[Reason] = match decision {
            Decision::Run(reasons) => reasons,
            Decision::UpToDate | Decision::Restore => &[],
        };
        let reasons: Vec<_> = reasons.iter().map(ToString::to_string).collect();
        self.sink.emit(Event::StageStarted {
            stage: stage.name.clone(),
            kind: stage.job.kind().to_owned(),
            reason: reasons.join("; "),
        });
    }

    /// Where the inputs lie.
    fn places(&self, stage: &Stage) -> BTreeMap<String, PathBuf> {
        let place = |source: &Source| match source {
            Source::Stage(name) => self.outputs.get(name).map(|made| made.output.clone()),
            Source::File(file) => Some(file.path.clone()),
        };
        let named =
            stage.inputs.iter().filter_map(|(name, from)| Some((name.clone(), place(from)?)));
        named.collect()
    }

    /// The first input from outside whose content is not what the plan was made on.
    fn changed_input(&self, stage: &Stage) -> Option<(String, PathBuf)> {
        stage.inputs.iter().find_map(|(name, source)| match source {
            Source::File(file) => {
                let now = file.digest_by(|path| self.settings.store.digest(path).ok());
                (now != file.digest).then(|| (name.clone(), file.path.clone()))
            }
            Source::Stage(_) => None,
        })
    }

    fn publish(&self, stage: &Stage, artifact: &Artifact) -> Result<Option<PathBuf>, Error> {
        let trained = stage.job.kind() == "train" && self.keeps_checkpoints;
        let Some(folder) = self.settings.run_folder.filter(|_| trained) else {
            return Ok(None);
        };
        let placed = publish::checkpoint(artifact, folder, &stage.name);
        placed.map(Some).map_err(|error| Error::Publish {
            stage: stage.name.clone(),
            folder: folder.to_owned(),
            error,
        })
    }

    /// Says how the run stands to the lock file; true when the file is to be written.
    fn settle(&self, standing: &Standing) -> bool {
        let lock = self.settings.lock.display();
        match standing {
            Standing::New | Standing::Changed(_) => true,
            Standing::Same => false,
            Standing::NotReproduced(stages) => {
                let stages = stages.join(", ");
                self.note(format!(
                    "`{lock}` is left alone: in the same environment, {stages} came out differently \
                     from what it says; `sft-run verify` finds where they part, and \
                     `sft-run verify --update` takes what came for the lock"
                ));
                false
            }
            Standing::OtherEnvironment { environment, outputs } => {
                let outputs = if outputs.is_empty() {
                    "all outputs are the same".to_owned()
                } else {
                    format!("other outputs there: {}", outputs.join(", "))
                };
                let environment = environment.join("; ");
                self.note(format!(
                    "`{lock}` is left alone: it was made in another environment ({environment}); \
                     {outputs}"
                ));
                false
            }
        }
    }

    fn output(&self, stage: &Stage, output: &std::path::Path) {
        let (stage, output) = (stage.name.clone(), output.display().to_string());
        self.sink.emit(Event::StageOutput { stage, output });
    }

    /// Keeps what a failed evaluation had computed, in the run folder: generating again is dear.
    fn keep_failed(&self, stage: &Stage, output: &std::path::Path) -> Result<(), Error> {
        let Some(folder) = self.settings.run_folder.filter(|_| stage.job.kind() == "evaluate")
        else {
            return Ok(());
        };
        let kept = publish::failed(output, folder, &stage.name);
        let kept = kept.map_err(|error| Error::Publish {
            stage: stage.name.clone(),
            folder: folder.to_owned(),
            error,
        })?;
        self.output(stage, &kept);
        Ok(())
    }

    fn note(&self, text: String) {
        self.sink.emit(Event::Note { text });
    }
}

/// A file that the plan was made without and does not list as missing.
fn unknown_input(stage: &Stage, inputs: &BTreeMap<String, Digest>) -> Error {
    let unknown = stage.inputs.iter().filter(|(name, _)| !inputs.contains_key(*name));
    let missing = unknown.map(|(name, source)| Missing {
        what: source.describe(),
        key: format!("stages.{}.{}.{name}", stage.name, stage.job.kind()),
        help: "name one that exists".to_owned(),
    });
    Error::Missing(missing.collect())
}

fn locked(stage: &Stage, artifact: &Artifact) -> LockedStage {
    let record = &artifact.record;
    let inputs = stage.inputs.iter().filter_map(|(name, source)| {
        let digest = *record.inputs.get(name)?;
        Some((name.clone(), LockedInput { from: source.describe(), digest }))
    });
    // Only trainings have one; a file that cannot be read is told by whoever reads the output.
    let trace = step_trace::read(&artifact.output.join(step_trace::FILE)).unwrap_or_default();
    let trace = step_trace::to_text(&trace);
    LockedStage {
        kind: stage.job.kind().to_owned(),
        version: stage.job.version(),
        backend: stage.backend.map(|backend| backend.name().to_owned()),
        fingerprint: record.fingerprint,
        settings: fingerprint::settings(stage),
        inputs: inputs.collect(),
        output: record.output,
        facts: record.facts.clone(),
        trace,
    }
}
