//! Writes TensorBoard's event file while a run goes on (`exp_manager.create_tensorboard_logger`).

use super::environment;
use crate::report::metrics_csv;
use crate::report::metrics_jsonl::Line;
use crate::report::record::RunRecord;
use crate::report::tensorboard::{EventFile, PREFIX, Scalar};
use crate::spec::event::{Event, Sample, Sink};
use std::fmt::Write;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Samples shown of each stage.
const SAMPLES: usize = 50;

/// A sink that writes numbers as they come.
#[derive(Debug)]
pub(super) struct TensorBoard {
    folder: PathBuf,
    /// Whether tags name their stage: when a run trains more than once.
    tagged: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    file: Option<EventFile>,
    stage: String,
    /// The first error; a sink cannot fail, so it waits for [`TensorBoard::finish`].
    error: Option<io::Error>,
}

impl TensorBoard {
    /// A writer into `folder`; its file is made when there is something to write.
    pub(super) fn new(folder: &Path, trainings: usize) -> TensorBoard {
        TensorBoard { folder: folder.into(), tagged: trainings > 1, state: Mutex::default() }
    }

    /// Adds what is known at the end: the recipe, the samples, and the numbers of trainings that
    /// were reused, where no file of an earlier run tells them.
    pub(super) fn finish(&self, record: &RunRecord) -> io::Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = state.error.take() {
            return Err(error);
        }
        if state.file.is_none() {
            if self.has_file()? {
                return Ok(());
            }
            self.past(&mut state, record)?;
        }
        let time = environment::seconds();
        let file = state.file(&self.folder)?;
        file.text(time, 0, "recipe", &format!("```yaml\n{}\n```", record.recipe))?;
        file.text(time, 0, "command", &record.summary.command.join(" "))?;
        for stage in &record.summary.stages {
            let metrics: Vec<Scalar> = stage
                .metrics
                .iter()
                .map(|(name, value)| (format!("{}/{name}", stage.name), *value))
                .collect();
            if !metrics.is_empty() {
                file.scalars(time, 0, &metrics)?;
            }
            let table = samples(record, &stage.name);
            if !table.is_empty() {
                file.text(time, 0, &format!("{}/samples", stage.name), &table)?;
            }
        }
        Ok(())
    }

    fn has_file(&self) -> io::Result<bool> {
        for entry in std::fs::read_dir(&self.folder)? {
            if entry?.file_name().to_string_lossy().starts_with(PREFIX) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn past(&self, state: &mut State, record: &RunRecord) -> io::Result<()> {
        for training in &record.trainings {
            state.stage.clone_from(&training.stage);
            for step in &training.steps {
                self.line(state, &Line::Step(step.clone()))?;
            }
            for validation in &training.validations {
                self.line(state, &Line::Validation(validation.clone()))?;
            }
        }
        Ok(())
    }

    fn line(&self, state: &mut State, line: &Line) -> io::Result<()> {
        let stage = if self.tagged { format!("{}/", state.stage) } else { String::new() };
        let numbers = metrics_csv::row(None, line)?;
        let scalars: Vec<Scalar> = numbers
            .into_iter()
            .filter(|(name, _)| name != "step")
            .filter_map(|(name, value)| Some((format!("{stage}{name}"), value.as_f64()?)))
            .collect();
        state.file(&self.folder)?.scalars(environment::seconds(), line.step(), &scalars)
    }

    fn take(&self, state: &mut State, event: Event) -> io::Result<()> {
        match event {
            Event::StageStarted { stage, .. } => state.stage = stage,
            Event::Step(metrics) => self.line(state, &Line::Step(metrics))?,
            Event::Validation(metrics) => self.line(state, &Line::Validation(metrics))?,
            _ => {}
        }
        Ok(())
    }
}

impl State {
    fn file(&mut self, folder: &Path) -> io::Result<&mut EventFile> {
        let made = match self.file.take() {
            Some(file) => file,
            None => EventFile::create(folder, environment::seconds(), std::process::id())?,
        };
        Ok(self.file.insert(made))
    }
}

impl Sink for TensorBoard {
    fn emit(&self, event: Event) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = self.take(&mut state, event) {
            state.error.get_or_insert(error);
        }
    }
}

/// The samples of `stage` as a Markdown table; empty without any.
fn samples(record: &RunRecord, stage: &str) -> String {
    let mine = record.samples.iter().filter(|(name, _)| name == stage).map(|(_, sample)| sample);
    let mut text = String::new();
    for sample in mine.take(SAMPLES) {
        if text.is_empty() {
            text += "| prompt | expected | output |\n|---|---|---|\n";
        }
        let Sample { prompt, expected, output, .. } = sample;
        let expected = expected.as_deref().unwrap_or_default();
        // Writing to a string cannot fail.
        let _ = writeln!(text, "| {} | {} | {} |", cell(prompt), cell(expected), cell(output));
    }
    text
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace(['\n', '\r'], " ")
}
