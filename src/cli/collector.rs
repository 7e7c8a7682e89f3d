//! Gathers what becomes of each stage, for the summary.

use crate::plan::Plan;
use crate::report::summary::{StageState, StageSummary};
use crate::runner::Report;
use crate::spec::event::{Event, Sink};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// The stages of a plan with what happened to each so far.
#[derive(Debug)]
pub(super) struct Collector(Mutex<Vec<StageSummary>>);

impl Collector {
    /// Nothing has happened yet.
    pub(super) fn new(plan: &Plan) -> Collector {
        let stage = |stage: &crate::plan::Stage| StageSummary {
            name: stage.name.clone(),
            kind: stage.job.kind().to_owned(),
            state: StageState::NotReached,
            reason: String::new(),
            seconds: 0.0,
            fingerprint: String::new(),
            output: String::new(),
            facts: BTreeMap::new(),
            metrics: BTreeMap::new(),
            intervals: BTreeMap::new(),
        };
        Collector(Mutex::new(plan.stages().iter().map(stage).collect()))
    }

    /// The stages, completed with what the finished run reports.
    pub(super) fn stages(&self, report: Option<&Report>) -> Vec<StageSummary> {
        let mut stages = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for done in report.iter().flat_map(|report| &report.stages) {
            let Some(stage) = stages.iter_mut().find(|stage| stage.name == done.stage) else {
                continue;
            };
            let record = &done.artifact.record;
            stage.fingerprint = record.fingerprint.to_string();
            stage.output = done.artifact.output.display().to_string();
            stage.facts = record.facts.clone();
        }
        stages
    }
}

/// `metrics.json` or `intervals.json` of an evaluate stage; empty for other kinds.
fn numbers<T: serde::de::DeserializeOwned>(output: &str, name: &str) -> BTreeMap<String, T> {
    let text = std::fs::read_to_string(Path::new(output).join(name)).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

impl Sink for Collector {
    fn emit(&self, event: Event) {
        let mut stages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut at = |name: &str, change: &dyn Fn(&mut StageSummary)| {
            stages.iter_mut().filter(|stage| stage.name == name).for_each(change);
        };
        match &event {
            Event::StageStarted { stage, reason, .. } => {
                at(stage, &|one| one.reason.clone_from(reason));
            }
            Event::StageReused { stage, .. } => at(stage, &|one| one.state = StageState::Reused),
            Event::StageFinished { stage, seconds, .. } => at(stage, &|one| {
                one.state = StageState::Run;
                one.seconds = *seconds;
            }),
            Event::StageOutput { stage, output } => at(stage, &|one| {
                one.output.clone_from(output);
                one.metrics = numbers(output, "metrics.json");
                one.intervals = numbers(output, "intervals.json");
            }),
            Event::StageFailed { stage, .. } => at(stage, &|one| one.state = StageState::Failed),
            _ => {}
        }
    }
}

/// Several sinks in order.
pub(super) struct Tee<'run>(pub(super) Vec<&'run dyn Sink>);

impl Sink for Tee<'_> {
    fn emit(&self, event: Event) {
        tracing::debug!(?event);
        for sink in &self.0 {
            sink.emit(event.clone());
        }
    }
}
