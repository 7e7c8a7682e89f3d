//! Trials of a sweep as processes of their own, each on a leash: it ends when the sweep does.

use super::terminal::{Paint, Terminal};
use crate::report::numbers::{duration, quantity};
use crate::report::record::RunRecord;
use crate::report::summary::RunState;
use crate::spec::event::{Event, Sink};
use crate::sweep::{Launch, Line, Order, Outcome, State, TrialEnd, numbers, reached};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How often a running trial is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// How the trials of a sweep are started.
pub(super) struct Processes<'a> {
    /// This program.
    pub(super) program: PathBuf,
    /// The recipe.
    pub(super) recipe: &'a Path,
    /// Words of every trial: overrides, `--var`, `--cache-dir`.
    pub(super) words: Vec<String>,
    /// The sweep's folder, absolute.
    pub(super) folder: PathBuf,
    /// Threads of each trial.
    pub(super) threads: usize,
    /// GPUs of each trial; 0 on the CPU.
    pub(super) gpus: usize,
    /// What is compared.
    pub(super) metric: String,
    /// Raised to stop all.
    pub(super) stop: Arc<AtomicBool>,
    /// Where progress is told.
    pub(super) terminal: Terminal,
}

/// The run folder of a trial.
pub(super) fn run_folder(sweep: &Path, trial: usize) -> PathBuf {
    sweep.join("trials").join(format!("{trial:04}"))
}

/// The file that a trial holds locked for as long as it runs.
pub(super) fn leash(sweep: &Path, trial: usize) -> PathBuf {
    run_folder(sweep, trial).join("leash")
}

impl Processes<'_> {
    fn command(&self, order: &Order, folder: &Path) -> io::Result<Command> {
        let log = File::options().create(true).append(true).open(folder.join("log.txt"))?;
        let mut command = Command::new(&self.program);
        command.arg("run").arg(self.recipe).args(&self.words);
        for (key, value) in &order.values {
            command.args(words(key, value));
        }
        let place = format!("++exp_manager.explicit_log_dir={}", quoted(&folder.to_string_lossy()));
        command.arg(place).arg("--leash").arg(leash(&self.folder, order.trial));
        if let Some(step) = order.pause_at {
            command.arg("--pause-at").arg(step.to_string());
        }
        command.args(["--quiet", "--json"]).env("RAYON_NUM_THREADS", self.threads.to_string());
        if self.gpus > 0 {
            let first = order.slot * self.gpus;
            let devices: Vec<String> =
                (first..first + self.gpus).map(|id| id.to_string()).collect();
            command.env("CUDA_VISIBLE_DEVICES", devices.join(","));
        }
        command.stdin(Stdio::piped()).stdout(log.try_clone()?).stderr(log);
        Ok(command)
    }

    fn start(&self, order: &Order, folder: &Path) -> io::Result<Outcome> {
        fs::create_dir_all(folder)?;
        let start = Instant::now();
        let mut child = self.command(order, folder)?.spawn()?;
        // The other end of the leash: letting go of it stops the trial.
        let mut leash = child.stdin.take();
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if self.stop.load(Ordering::Relaxed) {
                drop(leash.take());
            }
            std::thread::sleep(LOOK);
        };
        let record = RunRecord::read(folder).ok();
        let paused = order.pause_at.filter(|_| !status.success());
        if let (Some(step), Some(record)) = (paused, &record) {
            let training = record
                .trainings
                .last()
                .filter(|training| training.steps.last().is_some_and(|last| last.step >= step));
            if let Some(training) = training {
                let none =
                    || Outcome::Failed(format!("there is no {} up to step {step}", self.metric));
                return Ok(reached(training, &self.metric, step).map_or_else(none, Outcome::Paused));
            }
        }
        match (status.success(), record) {
            (true, Some(record)) => Ok(Outcome::Done {
                numbers: numbers(&record),
                seconds: start.elapsed().as_secs_f64(),
            }),
            _ if self.stop.load(Ordering::Relaxed) => Ok(Outcome::Interrupted),
            (_, Some(record)) if record.summary.state == RunState::Interrupted => {
                Ok(Outcome::Interrupted)
            }
            (_, record) => {
                let told = record.and_then(|record| record.summary.error);
                let error = told.unwrap_or_else(|| last_words(&folder.join("log.txt")));
                Ok(Outcome::Failed(format!("{error} ({status})")))
            }
        }
    }
}

impl Launch for Processes<'_> {
    fn run(&self, order: &Order) -> Outcome {
        let folder = run_folder(&self.folder, order.trial);
        self.start(order, &folder).unwrap_or_else(|error| Outcome::Failed(error.to_string()))
    }

    fn told(&self, state: &State, line: &Line) {
        if self.terminal.quiet || self.terminal.json {
            return;
        }
        let all = state.trials.len();
        let text = match line {
            Line::Started { trial, points } => {
                let values = crate::sweep::sampler::typed(&state.header.space, points);
                let values: Vec<String> =
                    values.iter().map(|(key, value)| format!("{key}={value}")).collect();
                format!(
                    "{} trial {trial} of {all}: {}",
                    self.terminal.paint(Paint::Cyan, "●"),
                    values.join(" ")
                )
            }
            Line::Done { trial, value, seconds, .. } => format!(
                "{} trial {trial}: {} {} ({})",
                self.terminal.paint(Paint::Green, "✓"),
                state.header.metric,
                quantity(*value),
                duration(*seconds)
            ),
            Line::Rung { trial, step, value, .. } => {
                format!(
                    "  trial {trial} at step {step}: {} {}",
                    state.header.metric,
                    quantity(*value)
                )
            }
            Line::Stopped { trial } => format!("  trial {trial} stopped: others were better there"),
            Line::Failed { trial, error } => {
                format!("{} trial {trial}: {error}", self.terminal.paint(Paint::Red, "✗"))
            }
            Line::Sweep(_) => return,
        };
        self.terminal.line(&text);
    }
}

/// A value as words of the command line: an override, or a variable of the recipe's templates.
pub(super) fn words(key: &str, value: &str) -> Vec<String> {
    match key.strip_prefix("vars.") {
        Some(name) => {
            vec!["--var".to_owned(), format!("{name}={}", value.trim_matches(['\'', '"']))]
        }
        None => vec![format!("{key}={value}")],
    }
}

/// A text as a quoted value of an override.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\\\""))
}

/// The end of what a process wrote before it died without a summary.
fn last_words(log: &Path) -> String {
    let text =
        fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let told: Vec<&str> = lines[lines.len().saturating_sub(12)..].to_vec();
    if told.is_empty() { "it ended without a word".to_owned() } else { told.join("\n") }
}

/// Every trial that failed, with its error.
pub(super) fn failures(state: &State) -> Vec<String> {
    let failed = state.trials.iter().enumerate().filter_map(|(number, trial)| match &trial.end {
        Some(TrialEnd::Failed(error)) => Some(format!("trial {number}: {error}")),
        _ => None,
    });
    failed.collect()
}

/// Holds the file at `path` for as long as this process lives, and raises `stop` when whoever
/// started it lets go of its input: the trial ends with the sweep, even one that was killed.
pub(super) fn on_leash(path: &Path, stop: &Arc<AtomicBool>) -> io::Result<File> {
    let file = File::options().create(true).append(true).open(path)?;
    file.lock()?;
    let stop = Arc::clone(stop);
    std::thread::spawn(move || {
        let mut nothing = Vec::new();
        // An error ends the wait as an end does.
        let _ = io::stdin().read_to_end(&mut nothing);
        stop.store(true, Ordering::Relaxed);
    });
    Ok(file)
}

/// A sink that raises a flag after a step.
pub(super) struct PauseAt {
    /// The step; none never pauses.
    pub(super) step: Option<u64>,
    /// The flag.
    pub(super) stop: Arc<AtomicBool>,
}

impl Sink for PauseAt {
    fn emit(&self, event: Event) {
        if let Event::Step(metrics) = &event
            && self.step.is_some_and(|step| metrics.step >= step)
        {
            self.stop.store(true, Ordering::Relaxed);
        }
    }
}
