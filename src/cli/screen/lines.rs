//! Plain lines for pipes, logs and CI: a line when something happened, or every few seconds.

use super::text::{self, Layout};
use crate::cli::terminal::Terminal;
use crate::spec::event::{Event, StepMetrics};
use std::time::{Duration, Instant};

/// Longest silence while work goes on.
const EVERY: Duration = Duration::from_secs(5);

/// Writes lines.
#[derive(Debug)]
pub(super) struct Lines {
    terminal: Terminal,
    layout: Layout,
    stage: String,
    last_line: Instant,
    training: Option<Pace>,
}

/// Where a training began, to tell the time left.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    start: Instant,
    first_step: u64,
}

impl Pace {
    /// A training whose first step here is this one.
    pub(super) fn new(step: u64) -> Pace {
        Pace { start: Instant::now(), first_step: step }
    }

    /// Seconds left at `step` of `total`, once two steps are known.
    pub(super) fn left(self, step: u64, total: u64) -> Option<f64> {
        let done = step.checked_sub(self.first_step).filter(|done| *done > 0)?;
        let seconds = self.start.elapsed().as_secs_f64() / done as f64;
        Some(seconds * total.saturating_sub(step) as f64)
    }
}

impl Lines {
    pub(super) fn new(terminal: Terminal, layout: Layout) -> Lines {
        let stage = String::new();
        Lines { terminal, layout, stage, last_line: Instant::now(), training: None }
    }

    pub(super) fn show(&mut self, event: &Event) {
        let (terminal, layout) = (&self.terminal, &self.layout);
        match event {
            Event::StageStarted { stage, reason, .. } => {
                let line = text::started(terminal, layout, stage, reason);
                stage.clone_into(&mut self.stage);
                self.training = None;
                self.line(&line);
            }
            Event::StageReused { stage, fingerprint, .. } => {
                self.line(&text::reused(terminal, layout, stage, fingerprint));
            }
            Event::StageFinished { stage, seconds, facts } => {
                self.line(&text::finished(terminal, layout, (stage, *seconds), facts));
            }
            Event::StageFailed { stage, .. } => {
                self.line(&text::failed(terminal, layout, stage));
            }
            Event::Progress { task, done, total, unit } => {
                if self.last_line.elapsed() >= EVERY {
                    self.indented(&text::progress(task, (*done, *total), unit));
                }
            }
            Event::Resumed { step } => self.indented(&format!("going on after step {step}")),
            Event::Step(metrics) => self.step(metrics),
            Event::Validation(metrics) => self.indented(&text::validation(metrics)),
            // The table at the end shows samples.
            Event::Sample(_) | Event::Saved { .. } | Event::StageOutput { .. } => {}
            Event::Note { text } => self.indented(text),
        }
    }

    fn step(&mut self, metrics: &StepMetrics) {
        let total = self.layout.steps.get(&self.stage).copied();
        let first = self.training.is_none();
        let pace = *self.training.get_or_insert_with(|| Pace::new(metrics.step));
        let due = first
            || Some(metrics.step) == total
            || metrics.step.is_multiple_of(self.layout.line_every.max(1))
            || self.last_line.elapsed() >= EVERY;
        if due {
            let left =
                total.and_then(|total| pace.left(metrics.step, total)).filter(|left| *left > 0.0);
            self.indented(&text::step(metrics, total, left));
        }
    }

    fn indented(&mut self, text: &str) {
        self.line(&format!("  {text}"));
    }

    fn line(&mut self, text: &str) {
        self.terminal.line(text);
        self.last_line = Instant::now();
    }
}
