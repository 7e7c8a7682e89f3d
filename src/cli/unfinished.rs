//! A run that has not come to its end, as the lock and the files of its folder tell it.

use super::run_folder::{Begun, RECIPE, RUNNING};
use crate::artifacts;
use crate::report::metrics_jsonl;
use crate::report::runs::{self, Progress};
use crate::report::summary::{self, RunState, Summary};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::SystemTime;

/// A run that goes on, or that was killed.
#[derive(Clone, Debug)]
pub(super) struct Unfinished {
    /// What is known of it; of a run that was killed, and of one that goes on, no stage.
    pub(super) summary: Summary,
    /// How far it is.
    pub(super) progress: Progress,
}

/// The unfinished run in `folder`; none when the last run there is done, or failed.
///
/// A process that comes to its end empties its lock file; one that is stopped or killed leaves its
/// name there.
pub(super) fn of(folder: &Path) -> Option<Unfinished> {
    let named = artifacts::named(&folder.join(RUNNING));
    let begun = named.as_ref().and_then(|named| Begun::of_text(&named.words));
    let is_alive = named.as_ref().is_some_and(|named| named.is_alive);
    let has = |name: &str| folder.join(name).exists();
    // What was set aside has no lock file.
    let was_left = has(RECIPE) && has("events.jsonl") && !has(summary::FILE);
    if !(is_alive || begun.is_some() || was_left) {
        return None;
    }
    let words = named.filter(|_| is_alive).map(|named| named.words);
    let process = words.and_then(|words| words.lines().next().map(str::to_owned));
    let begun = begun.unwrap_or_else(|| guessed(folder));
    let progress = Progress { process, ..progress(folder, &begun) };
    // A run that a signal stopped has written its summary itself.
    let own = summary::read(folder).filter(|own| !is_alive && own.started == begun.started);
    Some(Unfinished { summary: own.unwrap_or_else(|| of_begun(folder, begun, is_alive)), progress })
}

/// What the files tell of a run that says nothing of itself.
fn guessed(folder: &Path) -> Begun {
    let recipe = std::fs::read_to_string(folder.join(RECIPE)).unwrap_or_default();
    let name = runs::settings(&recipe).remove("name").unwrap_or_default();
    let started = told(folder).first().map(|line| line.time.clone()).unwrap_or_default();
    Begun { name, started, ..Begun::default() }
}

fn of_begun(folder: &Path, begun: Begun, is_alive: bool) -> Summary {
    Summary {
        version: summary::VERSION,
        name: begun.name,
        recipe: begun.recipe,
        command: begun.command,
        started: begun.started,
        seconds: seconds(folder),
        state: if is_alive { RunState::Running } else { RunState::Interrupted },
        error: None,
        parameters: None,
        stages: Vec::new(),
        environment: BTreeMap::new(),
        inputs: BTreeMap::new(),
        crates: BTreeMap::new(),
        device_seconds: 0.0,
    }
}

/// Seconds from the run's start to its last sign of life.
fn seconds(folder: &Path) -> f64 {
    let changed = |name: &str| -> Option<SystemTime> {
        std::fs::metadata(folder.join(name)).ok()?.modified().ok()
    };
    let last = ["events.jsonl", "metrics.jsonl"].into_iter().filter_map(changed).max();
    let since =
        last.zip(changed(RUNNING)).and_then(|(last, first)| last.duration_since(first).ok());
    since.map_or(0.0, |time| time.as_secs_f64())
}

/// The parts of a line of `events.jsonl` that tell which stage is at work.
#[derive(Deserialize)]
struct Told {
    time: String,
    event: String,
    #[serde(default)]
    stage: String,
    #[serde(default)]
    kind: String,
}

/// Lines that are whole; a killed process may have left a part of one.
fn told(folder: &Path) -> Vec<Told> {
    let text = std::fs::read_to_string(folder.join("events.jsonl")).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn progress(folder: &Path, begun: &Begun) -> Progress {
    let mut at_work: Option<Told> = None;
    // Earlier runs of the same recipe stand in the same file.
    for line in told(folder).into_iter().filter(|line| line.time >= begun.started) {
        match line.event.as_str() {
            "stage_started" => at_work = Some(line),
            "stage_finished" | "stage_failed" => at_work = None,
            _ => {}
        }
    }
    let Some(at_work) = at_work else { return Progress::default() };
    let is_mine = |stage: &Option<String>| stage.as_ref().is_none_or(|name| *name == at_work.stage);
    let lines = metrics_jsonl::read(&folder.join("metrics.jsonl")).unwrap_or_default();
    let step = lines.iter().filter(|(stage, _)| is_mine(stage)).map(|(_, line)| line.step()).max();
    let step = (at_work.kind == "train").then(|| step.unwrap_or(0));
    let steps = begun.steps.get(&at_work.stage).copied();
    Progress { process: None, stage: Some(at_work.stage), step, steps }
}
