//! Which stages take part in a run, and which are forced to.

use super::{Error, Settings};
use crate::base::suggest;
use crate::plan::{Plan, Source, Stage};
use std::collections::{BTreeMap, BTreeSet};

/// What the options `--to`, `--from`, `--force` and `--no-cache` come to.
#[derive(Debug)]
pub(super) struct Scope<'p> {
    /// The stages that take part, in order.
    pub(super) stages: Vec<&'p Stage>,
    /// Stages to run whatever the cache holds, with the option that says so.
    pub(super) forced: BTreeMap<String, &'static str>,
}

impl<'p> Scope<'p> {
    pub(super) fn new(plan: &'p Plan, settings: &Settings<'_>) -> Result<Scope<'p>, Error> {
        let known = |option, name: &str| match plan.stage(name) {
            Some(_) => Ok(()),
            None => Err(unknown(plan, option, name)),
        };
        let mut forced = BTreeMap::new();
        for name in &settings.force {
            known("--force", name)?;
            forced.insert(name.clone(), "--force");
        }
        if let Some(name) = &settings.from {
            known("--from", name)?;
            forced.extend(readers(plan, name).into_iter().map(|name| (name, "--from")));
        }
        if settings.no_cache {
            forced = plan.stages().iter().map(|stage| (stage.name.clone(), "--no-cache")).collect();
        }
        let mut stages: Vec<&Stage> = plan.stages().iter().collect();
        if let Some(name) = &settings.to {
            known("--to", name)?;
            let needed = needs(plan, name);
            stages.retain(|stage| needed.contains(&stage.name));
        }
        Ok(Scope { stages, forced })
    }
}

/// The stage and all that read from it.
fn readers(plan: &Plan, name: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::from([name.to_owned()]);
    // Stages stand after those they read from, so one pass finds all.
    for stage in plan.stages() {
        if sources(stage).any(|source| found.contains(source)) {
            found.insert(stage.name.clone());
        }
    }
    found
}

/// The stage and all that it reads from.
fn needs(plan: &Plan, name: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::from([name.to_owned()]);
    for stage in plan.stages().iter().rev() {
        if found.contains(&stage.name) {
            found.extend(sources(stage).map(str::to_owned));
        }
    }
    found
}

/// Names of the stages from which `stage` reads.
pub fn sources(stage: &Stage) -> impl Iterator<Item = &str> {
    stage.inputs.values().filter_map(|source| match source {
        Source::Stage(name) => Some(name.as_str()),
        Source::File(_) => None,
    })
}

fn unknown(plan: &Plan, option: &'static str, name: &str) -> Error {
    let known = plan.stages().iter().map(|stage| stage.name.as_str());
    let help = suggest::choices(name, "the stages are", known);
    Error::UnknownStage { option, name: name.to_owned(), help }
}
