//! The run folder while a run goes on: `metrics.jsonl`, `events.jsonl`, and what earlier runs left.

use super::environment;
use crate::artifacts::{Claim, Guard, claim_file};
use crate::base::atomic_file;
use crate::report::metrics_jsonl::{self, Line, MetricsLog};
use crate::report::tensorboard;
use crate::spec::event::{Event, Sink};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// The file that says which recipe a run folder belongs to.
pub(super) const RECIPE: &str = "recipe.resolved.yaml";

/// The file that the process that writes the folder of a run, or of a sweep, holds locked.
pub(super) const RUNNING: &str = ".running";

/// What a run says of itself in its lock file for as long as there is something to go on with.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Begun {
    /// Which process it is: `process 4711: sft-run …`; the file's first line.
    #[serde(skip)]
    pub holder: String,
    /// The recipe's name.
    pub name: String,
    /// The recipe's path as it was given.
    pub recipe: String,
    /// The command line as it was given.
    pub command: Vec<String>,
    /// When it began (RFC 3339).
    pub started: String,
    /// Steps of each train stage.
    pub steps: BTreeMap<String, u64>,
}

impl Begun {
    /// The text of the lock file: the holder, and the rest as JSON on a line of its own.
    fn text(&self) -> serde_json::Result<String> {
        Ok(format!("{}\n{}\n", self.holder.replace('\n', " "), serde_json::to_string(self)?))
    }

    /// Reads [`Self::text`]; none of what an earlier version wrote.
    pub(super) fn of_text(text: &str) -> Option<Begun> {
        let (holder, rest) = text.split_once('\n')?;
        let begun: Begun = serde_json::from_str(rest).ok()?;
        Some(Begun { holder: holder.to_owned(), ..begun })
    }
}

/// The run folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder in it.
    #[error("cannot write the run folder: `{}`: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Its metrics.
    #[error(transparent)]
    Metrics(#[from] metrics_jsonl::Error),
    /// Another run writes into it.
    #[error(
        "the run folder `{}` is in use by {holder}: wait for it to end, or give this run a folder \
         of its own (exp_manager.explicit_log_dir, or name and version)",
        path.display()
    )]
    Busy {
        /// The folder.
        path: PathBuf,
        /// Who holds it.
        holder: String,
    },
}

/// A run folder that events are written into.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    state: Mutex<State>,
    guard: Guard,
}

#[derive(Debug)]
struct State {
    metrics: MetricsLog,
    events: File,
    /// The first error; a sink cannot fail, so it waits for [`RunFolder::check`].
    error: Option<Error>,
}

/// One line of `events.jsonl`.
#[derive(Serialize)]
struct TimedEvent<'event> {
    time: String,
    #[serde(flatten)]
    event: &'event Event,
}

impl RunFolder {
    /// Opens the folder at `path` for a run of `recipe` (its resolved text).
    ///
    /// It is this process's alone until it is dropped; others are told what has `begun`.
    /// What a run of another recipe left there is moved to `run_0`, `run_1`, … inside, as NeMo does.
    pub fn open(path: &Path, recipe: &str, begun: &Begun) -> Result<RunFolder, Error> {
        let file = |path: PathBuf| move |source| Error::File { path, source };
        fs::create_dir_all(path).map_err(file(path.into()))?;
        let text = begun.text().map_err(io::Error::from).map_err(file(path.into()))?;
        let guard = match claim_file(&path.join(RUNNING), &text).map_err(file(path.into()))? {
            Claim::Mine(guard) => guard,
            Claim::Theirs(text) => {
                let holder = text.lines().next().unwrap_or_default().to_owned();
                return Err(Error::Busy { path: path.into(), holder });
            }
        };
        if holds_another_recipe(path, recipe) {
            set_aside(path).map_err(file(path.into()))?;
        }
        if path.join("failed").exists() {
            fs::remove_dir_all(path.join("failed")).map_err(file(path.join("failed")))?;
        }
        let recipe_path = path.join(RECIPE);
        atomic_file::write(&recipe_path, recipe.as_bytes()).map_err(file(recipe_path))?;
        let events = path.join("events.jsonl");
        let opened = OpenOptions::new().append(true).create(true).open(&events);
        let metrics = MetricsLog::open(&path.join("metrics.jsonl"), begun.steps.len() > 1)?;
        let state = State { metrics, events: opened.map_err(file(events))?, error: None };
        Ok(RunFolder { path: path.into(), state: Mutex::new(state), guard })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Puts the metrics that a train stage recorded itself in place of those written live.
    pub fn adopt_metrics(&self, stage: &str, recorded: &Path) -> Result<(), Error> {
        let lines: Vec<Line> =
            metrics_jsonl::read(recorded)?.into_iter().map(|(_, line)| line).collect();
        self.locked(|state| Ok(state.metrics.replace(stage, &lines)?))
    }

    /// Says that the run came to its end and `summary.json` tells of it.
    pub fn settle(&self) -> Result<(), Error> {
        let wrong = |source| Error::File { path: self.path.join(RUNNING), source };
        self.guard.settle().map_err(wrong)
    }

    /// The first error that writing an event met.
    pub fn check(&self) -> Result<(), Error> {
        self.locked(|state| state.error.take().map_or(Ok(()), Err))
    }

    fn locked<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl State {
    fn take(&mut self, event: &Event, path: &Path) -> Result<(), Error> {
        match event {
            Event::StageStarted { stage, kind, .. } if kind == "train" => {
                self.metrics.begin(stage)?;
            }
            Event::Resumed { step } => self.metrics.resume(*step)?,
            Event::Step(metrics) => self.metrics.append(&Line::Step(metrics.clone()))?,
            Event::Validation(metrics) => {
                self.metrics.append(&Line::Validation(metrics.clone()))?;
            }
            _ => {}
        }
        // Progress is for the eye, and steps have a file of their own.
        if matches!(event, Event::Progress { .. } | Event::Step(_)) {
            return Ok(());
        }
        let line = serde_json::to_string(&TimedEvent { time: environment::now(), event });
        let written =
            line.map_err(io::Error::from).and_then(|line| writeln!(self.events, "{line}"));
        written.map_err(|source| Error::File { path: path.join("events.jsonl"), source })
    }
}

impl Sink for RunFolder {
    fn emit(&self, event: Event) {
        self.locked(|state| {
            if let Err(error) = state.take(&event, &self.path) {
                state.error.get_or_insert(error);
            }
        });
    }
}

/// Whether a run of `recipe` would overwrite another recipe's run in `folder`.
pub(super) fn holds_another_recipe(folder: &Path, recipe: &str) -> bool {
    fs::read_to_string(folder.join(RECIPE)).is_ok_and(|there| there != recipe)
}

/// What this program writes into a run folder.
const OURS: &[&str] = &[
    RECIPE,
    "checkpoints",
    "events.jsonl",
    "failed",
    "metrics.csv",
    "metrics.jsonl",
    "report.html",
    "samples.jsonl",
    "summary.json",
];

/// Moves an earlier run into the next free `run_N`; what this program did not write stays, since
/// `explicit_log_dir` can name any folder.
fn set_aside(folder: &Path) -> io::Result<()> {
    let mut names: Vec<String> = Vec::new();
    for entry in fs::read_dir(folder)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    let free =
        (0..=names.len()).map(|number| format!("run_{number}")).find(|name| !names.contains(name));
    let aside = folder.join(free.unwrap_or_default());
    fs::create_dir(&aside)?;
    let ours =
        |name: &&String| OURS.contains(&name.as_str()) || name.starts_with(tensorboard::PREFIX);
    for name in names.iter().filter(ours) {
        fs::rename(folder.join(name), aside.join(name))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_runs_never_write_into_one_folder() {
        let folder = tempfile::tempdir().unwrap();
        let open = |holder: &str| {
            let begun = Begun { holder: holder.to_owned(), ..Begun::default() };
            RunFolder::open(folder.path(), "a: 1\n", &begun)
        };
        let first = open("process 1: sft-run a.yaml").unwrap();
        let error = open("process 2").unwrap_err().to_string();
        assert!(error.contains("is in use by process 1: sft-run a.yaml: wait"), "{error}");
        drop(first);
        assert!(open("process 2").is_ok());
    }

    #[test]
    fn another_recipe_sets_the_old_run_aside() {
        let folder = tempfile::tempdir().unwrap();
        for recipe in ["lr: 1\n", "lr: 1\n", "lr: 2\n", "lr: 3\n"] {
            fs::create_dir_all(folder.path().join("data")).unwrap();
            let run = RunFolder::open(folder.path(), recipe, &Begun::default()).unwrap();
            run.emit(Event::Note { text: recipe.to_owned() });
            run.check().unwrap();
        }
        let lines =
            |name: &str| fs::read_to_string(folder.path().join(name)).unwrap().lines().count();
        assert_eq!(lines("run_0/events.jsonl"), 2);
        assert_eq!(lines("run_1/events.jsonl"), 1);
        assert_eq!(lines("events.jsonl"), 1);
        assert!(!folder.path().join("run_2").exists());
        assert!(folder.path().join("data").is_dir(), "what others wrote stays");
    }
}
