//! `summary.json`: what a run did, in one file for programs, the report and later commands.

use crate::base::atomic_file;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

/// The file's name in the run folder.
pub const FILE: &str = "summary.json";

/// Version of the file's layout. 1: first.
pub const VERSION: u32 = 1;

/// What a run did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Version of this layout.
    pub version: u32,
    /// The recipe's `name`.
    pub name: String,
    /// The recipe's path as it was given.
    pub recipe: String,
    /// The command line as it was given, overrides included.
    pub command: Vec<String>,
    /// When the run began (RFC 3339).
    pub started: String,
    /// Seconds from start to end.
    pub seconds: f64,
    /// How it ended.
    pub state: RunState,
    /// The error with its causes, when it failed.
    #[serde(default)]
    pub error: Option<String>,
    /// Number of the model's parameters, when the plan knows it.
    #[serde(default)]
    pub parameters: Option<u64>,
    /// The stages in the plan's order.
    pub stages: Vec<StageSummary>,
    /// Program version, host, processor, threads, devices, … by name.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// Digest of every file from outside, by the name that the recipe gives it.
    #[serde(default)]
    pub inputs: BTreeMap<String, String>,
    /// Versions of the crates that numbers and texts come from.
    #[serde(default)]
    pub crates: BTreeMap<String, String>,
    /// Seconds that devices were at work: those of each stage that computes, times its devices.
    #[serde(default)]
    pub device_seconds: f64,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// Every stage is done and at least one ran.
    Done,
    /// Nothing had to run.
    UpToDate,
    /// A stage failed.
    Failed,
    /// Stopped by a signal.
    Interrupted,
    /// It has not ended: a process is at work. It stands in lists only, in no file.
    Running,
}

impl RunState {
    /// The words for people.
    pub fn words(self) -> &'static str {
        match self {
            RunState::Done => "done",
            RunState::UpToDate => "up to date",
            RunState::Failed => "failed",
            RunState::Interrupted => "interrupted",
            RunState::Running => "running",
        }
    }
}

/// What became of one stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StageSummary {
    /// The stage's name.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// What was done with it.
    pub state: StageState,
    /// Why it ran; empty when it was reused.
    #[serde(default)]
    pub reason: String,
    /// Seconds it took; 0 when it was reused.
    #[serde(default)]
    pub seconds: f64,
    /// Its fingerprint in full.
    #[serde(default)]
    pub fingerprint: String,
    /// Where its output lies.
    #[serde(default)]
    pub output: String,
    /// Numbers to show.
    #[serde(default)]
    pub facts: BTreeMap<String, f64>,
    /// The content of `metrics.json`, for an evaluate stage.
    #[serde(default)]
    pub metrics: BTreeMap<String, f64>,
    /// The content of its `intervals.json`: 95% intervals of the metrics.
    #[serde(default)]
    pub intervals: BTreeMap<String, [f64; 2]>,
}

/// What was done with a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StageState {
    /// It ran.
    Run,
    /// Its output was taken from the cache or stood already.
    Reused,
    /// It ran and failed.
    Failed,
    /// It was not reached.
    NotReached,
}

/// `summary.json` of the run folder, when there is one that this version reads.
pub fn read(run_folder: &Path) -> Option<Summary> {
    let text = std::fs::read_to_string(run_folder.join(FILE)).ok()?;
    serde_json::from_str(&text).ok()
}

impl Summary {
    /// Writes the file into `run_folder`.
    pub fn write(&self, run_folder: &Path) -> io::Result<()> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        atomic_file::write(&run_folder.join(FILE), text.as_bytes())
    }
}
