//! Runs the stages one after the other in a store of their own, and compares each with the lock.

use super::finding::Finding;
use super::steps::{Seen, Watch};
use super::{Check, StageVerdict, Tolerances, Verdict, compare};
use crate::artifacts::{Artifact, Lock, LockedStage, Store};
use crate::base::digest::Digest;
use crate::base::numbers::counted;
use crate::base::step_trace;
use crate::plan::{Plan, Stage};
use crate::runner::{self, Execute, Reason, Settings};
use crate::spec::event::Sink;
use crate::spec::job::Job;
use crate::stages;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// What is verified, and how.
pub struct Request<'a> {
    /// The plan of the recipe as it stands now.
    pub plan: &'a Plan,
    /// What it is held to.
    pub lock: &'a Lock,
    /// The recipe's own cache: outputs there are compared with file by file, and stages that are
    /// not verified are taken from it.
    pub cache: &'a Store,
    /// How the stages run; its store is an empty one.
    pub settings: Settings<'a>,
    /// Steps of each training; none for all.
    pub steps: Option<u64>,
    /// The stages to verify; empty for all.
    pub only: BTreeSet<String>,
    /// Tolerances for another environment.
    pub tolerances: Tolerances,
    /// Whether stages after the first difference run too.
    pub to_the_end: bool,
}

/// Verifies.
///
/// Ends after the first stage that differs, unless all are asked for.
pub fn run(
    request: &Request<'_>,
    execute: &Execute<'_>,
    sink: &dyn Sink,
    stop: &AtomicBool,
) -> Result<Verdict, runner::Error> {
    let mut environment = request.lock.other_environment(&request.settings.environment);
    environment.extend(other_places(request));
    let mut walk = Walk {
        request,
        execute,
        sink,
        stop,
        exact: environment.is_empty(),
        unfinished: BTreeSet::new(),
        outputs: BTreeMap::new(),
        different: false,
    };
    let mut stages = Vec::new();
    for stage in request.plan.stages() {
        stages.push(walk.stage(stage)?);
    }
    let gone = request.lock.stages.iter().filter(|(name, _)| request.plan.stage(name).is_none());
    stages.extend(gone.map(|(name, stage)| StageVerdict {
        stage: name.clone(),
        kind: stage.kind.clone(),
        check: Check::Different { findings: vec![Finding::Gone] },
        seconds: 0.0,
    }));
    Ok(Verdict { exact: walk.exact, environment, stages })
}

/// Stages that compute on another class of device or in another layout than the lock's.
fn other_places(request: &Request<'_>) -> Vec<String> {
    let known = request
        .plan
        .stages()
        .iter()
        .filter_map(|stage| Some((stage, request.lock.stages.get(&stage.name)?)));
    let nothing = BTreeMap::new();
    let differing = known.flat_map(|(stage, old)| {
        let reasons = runner::differences(old, stage, &nothing).into_iter();
        reasons.filter(Reason::is_about_place).map(|reason| format!("{}: {reason}", stage.name))
    });
    differing.collect()
}

/// Whether a stage of this kind has the same bytes wherever it runs: it computes with no float.
fn is_exact_everywhere(kind: &str) -> bool {
    matches!(kind, "tokenize" | "shard")
}

struct Walk<'a> {
    request: &'a Request<'a>,
    execute: &'a Execute<'a>,
    sink: &'a dyn Sink,
    stop: &'a AtomicBool,
    exact: bool,
    /// Stages that have no whole output here.
    unfinished: BTreeSet<String>,
    /// Digests of the outputs so far.
    outputs: BTreeMap<String, Digest>,
    different: bool,
}

impl Walk<'_> {
    fn stage(&mut self, stage: &Stage) -> Result<StageVerdict, runner::Error> {
        let started = Instant::now();
        let check = match self.reason_to_skip(stage) {
            Some(reason) => {
                self.unfinished.insert(stage.name.clone());
                Check::NotChecked { reason }
            }
            None => self.check(stage)?,
        };
        self.different |= matches!(check, Check::Different { .. });
        let (name, kind) = (stage.name.clone(), stage.job.kind().to_owned());
        Ok(StageVerdict { stage: name, kind, check, seconds: started.elapsed().as_secs_f64() })
    }

    fn reason_to_skip(&self, stage: &Stage) -> Option<String> {
        if self.different && !self.request.to_the_end {
            return Some("a stage before it differs".to_owned());
        }
        let needs = runner::sources(stage).find(|name| self.unfinished.contains(*name));
        needs.map(|name| format!("it reads from `{name}`, which was not finished"))
    }

    fn check(&mut self, stage: &Stage) -> Result<Check, runner::Error> {
        let only = &self.request.only;
        if !only.is_empty() && !only.contains(&stage.name) {
            self.take_from_cache(stage)?;
            return Ok(Check::NotChecked { reason: "not asked for".to_owned() });
        }
        let Some(old) = self.request.lock.stages.get(&stage.name) else {
            // What follows from a stage that nothing can be held to is not looked at.
            self.unfinished.insert(stage.name.clone());
            return Ok(Check::Different { findings: vec![Finding::New] });
        };
        let trace = step_trace::from_text(&old.trace).unwrap_or_default();
        let tolerances = (!self.exact).then_some(&self.request.tolerances);
        let limit = self.request.steps.filter(|_| matches!(stage.job, Job::Train(_)));
        let watch = Watch::new((self.sink, self.stop), &trace, tolerances, limit);
        let result = self.run(stage, &watch);
        let seen = watch.seen();
        if seen.ended {
            // The flag was raised here, not by a person.
            self.stop.store(false, Ordering::Relaxed);
        }
        match result {
            Ok(done) => Ok(self.finished(stage, old, &done, seen)),
            Err(runner::Error::Stopped { .. }) if seen.ended => {
                self.unfinished.insert(stage.name.clone());
                Ok(self.cut_short(stage, old, seen))
            }
            Err(runner::Error::Failed { error, .. }) => self.failed(stage, old, *error),
            Err(error) => Err(error),
        }
    }

    /// A stage that fails on something else than the lock tells of differs; one that fails on the
    /// same fails the verification.
    fn failed(
        &mut self,
        stage: &Stage,
        old: &LockedStage,
        error: stages::Error,
    ) -> Result<Check, runner::Error> {
        let mut findings = self.asked(stage, old);
        if findings.is_empty() {
            return Err(runner::Error::Failed {
                stage: stage.name.clone(),
                error: Box::new(error),
            });
        }
        self.unfinished.insert(stage.name.clone());
        findings.push(Finding::Failed { error: error.to_string() });
        Ok(Check::Different { findings })
    }

    fn run(&mut self, stage: &Stage, sink: &dyn Sink) -> Result<Artifact, runner::Error> {
        let mut settings = self.request.settings.clone();
        settings.to = Some(stage.name.clone());
        let plan = self.request.plan;
        let report = runner::run(plan, &settings, self.execute, sink, self.stop)?;
        let outputs =
            report.stages.iter().map(|done| (done.stage.clone(), done.artifact.record.output));
        self.outputs.extend(outputs);
        let made = report.stages.into_iter().find(|done| done.stage == stage.name);
        made.map(|done| done.artifact).ok_or_else(|| runner::Error::Missing(Vec::new()))
    }

    /// Takes the output that the lock names from the recipe's cache, where it is still there.
    fn take_from_cache(&self, stage: &Stage) -> Result<(), runner::Error> {
        if let Some(old) = self.request.lock.stages.get(&stage.name) {
            self.request.settings.store.adopt(self.request.cache, &old.kind, old.fingerprint)?;
        }
        Ok(())
    }

    /// What the stage is asked or given otherwise than the lock says.
    fn asked(&self, stage: &Stage, old: &LockedStage) -> Vec<Finding> {
        let reasons = runner::differences(old, stage, &self.outputs).into_iter();
        let told = reasons.filter(|reason| self.exact || !self.follows_from_place(reason));
        told.map(|because| Finding::Asked { because }).collect()
    }

    /// Whether in another environment this must be expected: another device or layout, or the output
    /// of a stage that rounds otherwise there.
    fn follows_from_place(&self, reason: &Reason) -> bool {
        let Reason::Input { old: Some(old), new: Some(new), .. } = reason else {
            return reason.is_about_place();
        };
        let stage = old.from.strip_prefix("stage ").and_then(|name| self.request.plan.stage(name));
        old.from == new.from && stage.is_some_and(|stage| !is_exact_everywhere(stage.job.kind()))
    }

    fn cut_short(&self, stage: &Stage, old: &LockedStage, seen: Seen) -> Check {
        let mut findings = self.asked(stage, old);
        match seen.difference {
            Some(step) => self.explained(&mut findings, step),
            None if findings.is_empty() => {
                let how = if self.exact { "to the bit" } else { "within the tolerances" };
                let compared = format!("{} {how}", counted(seen.compared as usize, "step"));
                return Check::Same { compared };
            }
            None => {}
        }
        Check::Different { findings }
    }

    fn finished(&self, stage: &Stage, old: &LockedStage, made: &Artifact, seen: Seen) -> Check {
        let mut findings = self.asked(stage, old);
        if let Some(step) = seen.difference {
            self.explained(&mut findings, step);
        }
        let tolerances = (!self.exact).then_some(&self.request.tolerances);
        let kind = stage.job.kind();
        if kind == "evaluate" {
            for metric in compare::metrics(old, made, tolerances) {
                self.explained(&mut findings, metric);
            }
        }
        // What computes in floating point has other bytes on another machine.
        let bytes = self.exact || is_exact_everywhere(kind);
        if bytes && let Some(output) = compare::bytes(old, made, self.request.cache) {
            self.explained(&mut findings, output);
        }
        if !findings.is_empty() {
            return Check::Different { findings };
        }
        let steps = if seen.compared > 0 {
            format!("{} and ", counted(seen.compared as usize, "step"))
        } else {
            String::new()
        };
        match (bytes, kind) {
            (true, _) => Check::Same { compared: format!("{steps}all bytes") },
            (false, "train") if seen.compared > 0 => Check::Same {
                compared: format!(
                    "{} within the tolerances",
                    counted(seen.compared as usize, "step")
                ),
            },
            (false, "evaluate") => {
                Check::Same { compared: "metrics within the tolerances".to_owned() }
            }
            (false, _) => {
                Check::NotChecked { reason: "its bytes are another environment's".to_owned() }
            }
        }
    }

    /// Adds a difference in what came out, after what explains it.
    fn explained(&self, findings: &mut Vec<Finding>, difference: Finding) {
        if findings.is_empty() && self.exact {
            findings.push(Finding::NotReproducible);
        }
        findings.push(difference);
    }
}
