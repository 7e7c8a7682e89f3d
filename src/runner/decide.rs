//! Reuse or run, for one stage whose inputs are known or not yet.

use super::reason::{Reason, compare};
use crate::artifacts::{Artifact, Error, Found, Lock, LockedStage, Store};
use crate::base::digest::Digest;
use crate::plan::{Plan, Source, Stage, fingerprint};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;

/// What happens to a stage.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "decision", content = "reasons", rename_all = "snake_case")]
pub enum Decision {
    /// Its output is the one that the last run made or used.
    UpToDate,
    /// Its output is in the cache from an earlier run.
    Restore,
    /// It runs, for these reasons.
    Run(Vec<Reason>),
}

impl Decision {
    /// Whether the stage runs.
    pub fn runs(&self) -> bool {
        matches!(self, Decision::Run(_))
    }
}

/// What earlier runs made, against which reasons are told.
///
/// The last run of this recipe with this cache comes first; the lock file, which another machine
/// may have written, stands in for what it does not know.
#[derive(Clone, Debug, Default)]
pub struct Previous {
    stages: BTreeMap<String, LockedStage>,
}

impl Previous {
    /// Reads what `store` and the lock file know of the recipe whose lock file is `lock`.
    pub fn read(store: &Store, lock: &Path) -> Result<Previous, Error> {
        let mut stages = Lock::read(lock)?.map(|lock| lock.stages).unwrap_or_default();
        if let Some(last) = Lock::read(&store.last_run(lock))? {
            stages.extend(last.stages);
        }
        Ok(Previous { stages })
    }

    /// What is known of the stages of `plan`.
    pub(super) fn of(&self, plan: &Plan) -> BTreeMap<String, LockedStage> {
        let known = self.stages.iter().filter(|(name, _)| plan.stage(name).is_some());
        known.map(|(name, stage)| (name.clone(), stage.clone())).collect()
    }

    /// What is known of the stage called `name`.
    pub fn stage(&self, name: &str) -> Option<&LockedStage> {
        self.stages.get(name)
    }
}

/// A decision, and what it was made on.
#[derive(Clone, Debug)]
pub(super) struct Decided {
    /// What happens.
    pub(super) decision: Decision,
    /// The stage's fingerprint; none while an input is not known.
    pub(super) fingerprint: Option<Digest>,
    /// The output, when it is reused.
    pub(super) artifact: Option<Artifact>,
}

/// Digests of the inputs of `stage` as far as they are known; `outputs` holds those of stages.
pub(super) fn known_inputs(
    stage: &Stage,
    outputs: &BTreeMap<String, Digest>,
) -> BTreeMap<String, Digest> {
    let digest = |source: &Source| match source {
        Source::Stage(name) => outputs.get(name).copied(),
        Source::File(file) => file.digest,
    };
    let known = stage.inputs.iter().filter_map(|(name, from)| Some((name.clone(), digest(from)?)));
    known.collect()
}

/// Decides about one stage.
pub(super) fn decide(
    stage: &Stage,
    inputs: &BTreeMap<String, Digest>,
    store: &Store,
    previous: &Previous,
    forced: Option<&'static str>,
) -> Decided {
    let before = previous.stage(&stage.name);
    let differences = || before.map_or(vec![Reason::New], |old| compare(old, stage, inputs));
    if inputs.len() < stage.inputs.len() {
        let mut reasons = differences();
        if before.is_some() {
            reasons.extend(waits_for(stage, inputs));
        }
        return Decided { decision: Decision::Run(reasons), fingerprint: None, artifact: None };
    }
    let name = fingerprint::of(stage, inputs);
    let run = |mut reasons: Vec<Reason>| {
        if stage.continues() && forced.is_none() && store.has_partial(name) {
            reasons.insert(0, Reason::Continues);
        }
        Decided { decision: Decision::Run(reasons), fingerprint: Some(name), artifact: None }
    };
    if let Some(option) = forced {
        return run(vec![Reason::Forced { option }]);
    }
    match store.find(stage.job.kind(), name) {
        Found::Damaged(what) => run(vec![Reason::OutputDamaged { what }]),
        Found::Missing => {
            let reasons = differences();
            run(if reasons.is_empty() { vec![Reason::OutputMissing] } else { reasons })
        }
        Found::Whole(artifact) => {
            let same = before.is_some_and(|before| before.fingerprint == name);
            let decision = if same { Decision::UpToDate } else { Decision::Restore };
            Decided { decision, fingerprint: Some(name), artifact: Some(*artifact) }
        }
    }
}

/// The stages whose outputs are not known yet. (Files that are missing are told by the plan.)
fn waits_for(stage: &Stage, inputs: &BTreeMap<String, Digest>) -> Option<Reason> {
    let unknown = stage.inputs.iter().filter(|(name, _)| !inputs.contains_key(*name));
    let mut stages: Vec<String> = Vec::new();
    for (_, source) in unknown {
        if let Source::Stage(name) = source
            && !stages.contains(name)
        {
            stages.push(name.clone());
        }
    }
    (!stages.is_empty()).then_some(Reason::Upstream { stages })
}
