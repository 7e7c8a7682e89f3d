//! Progress bars for a terminal; finished stages stay as lines above the bar.

use super::lines::Pace;
use super::text::{self, Layout};
use crate::cli::terminal::{Paint, Terminal};
use crate::report::numbers::{count, duration};
use crate::spec::event::{Event, StepMetrics};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::time::Duration;

/// Redraws of the spinner per second are `1 / TICK`.
const TICK: Duration = Duration::from_millis(120);

/// Draws the bar of the stage that runs.
#[derive(Debug)]
pub(super) struct Bars {
    terminal: Terminal,
    layout: Layout,
    stage: String,
    reason: String,
    bar: Option<ProgressBar>,
    training: Option<Pace>,
}

impl Bars {
    pub(super) fn new(terminal: Terminal, layout: Layout) -> Bars {
        Bars {
            terminal,
            layout,
            stage: String::new(),
            reason: String::new(),
            bar: None,
            training: None,
        }
    }

    pub(super) fn show(&mut self, event: &Event) {
        let terminal = self.terminal;
        match event {
            Event::StageStarted { stage, reason, .. } => self.start(stage, reason),
            Event::StageReused { stage, fingerprint, .. } => {
                self.line(&text::reused(&terminal, &self.layout, stage, fingerprint));
            }
            Event::StageFinished { stage, seconds, facts } => {
                self.clear();
                self.line(&text::finished(&terminal, &self.layout, (stage, *seconds), facts));
            }
            Event::StageFailed { stage, .. } => {
                self.clear();
                self.line(&text::failed(&terminal, &self.layout, stage));
            }
            Event::Progress { task, done, total, unit } => {
                let numbers = format!("{}/{} {unit}", count(*done), count(*total));
                self.move_to(*done, *total, &format!("{task}  {numbers}"));
            }
            Event::Resumed { step } => self.indented(&format!("going on after step {step}")),
            Event::Step(metrics) => self.step(metrics),
            Event::Validation(metrics) => self.indented(&text::validation(metrics)),
            // The table at the end shows samples.
            Event::Sample(_) | Event::Saved { .. } | Event::StageOutput { .. } => {}
            Event::Note { text } => self.indented(&terminal.paint(Paint::Yellow, text)),
        }
    }

    fn start(&mut self, stage: &str, reason: &str) {
        self.clear();
        stage.clone_into(&mut self.stage);
        reason.clone_into(&mut self.reason);
        self.training = None;
        let target = if self.terminal.json {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::stdout()
        };
        let bar = ProgressBar::with_draw_target(None, target)
            .with_style(self.style("{spinner} {prefix}  {wide_msg}"));
        bar.set_prefix(self.layout.name(stage));
        let reason = text::reasons(&self.terminal, &self.layout, reason);
        bar.set_message(self.terminal.paint(Paint::Dim, &reason));
        bar.enable_steady_tick(TICK);
        self.bar = Some(bar);
    }

    fn step(&mut self, metrics: &StepMetrics) {
        let Some(total) = self.layout.steps.get(&self.stage).copied() else { return };
        let pace = *self.training.get_or_insert_with(|| Pace::new(metrics.step));
        let left = pace
            .left(metrics.step, total)
            .map_or(String::new(), |left| format!("  {} left", duration(left)));
        let place = format!("{}/{}", count(metrics.step), count(total));
        self.move_to(
            metrics.step,
            total,
            &format!("{place}  {}{left}", text::step_numbers(metrics)),
        );
    }

    fn move_to(&mut self, done: u64, total: u64, message: &str) {
        let Some(bar) = &self.bar else { return };
        if bar.length().is_none() {
            let color = if self.terminal.color { ".cyan/dim" } else { "" };
            bar.set_style(
                self.style(&format!("{{spinner}} {{prefix}}  {{wide_bar{color}}}  {{msg}}")),
            );
        }
        bar.set_length(total);
        bar.set_position(done);
        bar.set_message(message.to_owned());
    }

    fn style(&self, template: &str) -> ProgressStyle {
        let template = if self.terminal.color {
            template.replace("{spinner}", "{spinner:.cyan}")
        } else {
            template.to_owned()
        };
        let template = template.replace("{wide_bar.", "{wide_bar:.");
        // The templates stand in this file; one that is wrong shows as the default bar.
        let style = ProgressStyle::with_template(&template)
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        style.progress_chars("━╸─").tick_chars("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏●")
    }

    fn indented(&self, text: &str) {
        self.line(&format!("  {:width$}  {text}", "", width = self.layout.name_width));
    }

    /// Writes a line above the bar.
    fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| self.terminal.line(text)),
            None => self.terminal.line(text),
        }
    }

    fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        self.clear();
    }
}
