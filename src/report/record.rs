//! A finished run as its folder tells it: the content of `report.html`.

use super::samples;
use super::summary::{self, Summary};
use crate::spec::event::{Sample, StepMetrics, ValidationMetrics};
use serde::Deserialize;
use serde_json::Value;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Why a run folder cannot be read or shown.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is not what it should be.
    #[error("`{}` line {line} is not what this version writes: run the recipe again", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// The page cannot be written.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The page's template failed.
    #[error("cannot make the page")]
    Template(#[from] minijinja::Error),
}

/// A run: its summary, its curves, its samples, its recipe.
#[derive(Clone, Debug, PartialEq)]
pub struct RunRecord {
    /// `summary.json`.
    pub summary: Summary,
    /// `metrics.jsonl`, by train stage in the order of first lines.
    pub trainings: Vec<Training>,
    /// `samples.jsonl`: the stage's name with each sample, in file order.
    pub samples: Vec<(String, Sample)>,
    /// `recipe.resolved.yaml`.
    pub recipe: String,
}

/// The curves of one train stage.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Training {
    /// The stage's name; empty when the lines carry none.
    pub stage: String,
    /// One entry for each logged step.
    pub steps: Vec<StepMetrics>,
    /// One entry for each validation.
    pub validations: Vec<ValidationMetrics>,
}

impl RunRecord {
    /// Reads a run folder.
    ///
    /// `summary.json` must be there. `metrics.jsonl` (lines of [`StepMetrics`] and
    /// [`ValidationMetrics`], with a key `stage` when there are several train stages),
    /// `samples.jsonl` (see [`samples`]) and `recipe.resolved.yaml` are empty when missing: a run
    /// without a train stage has no metrics.
    pub fn read(run_folder: &Path) -> Result<RunRecord, Error> {
        let path = run_folder.join(summary::FILE);
        let text = fs::read_to_string(&path);
        let text = text.map_err(|source| Error::Read { path: path.clone(), source })?;
        let parsed = serde_json::from_str(&text);
        let summary = parsed.map_err(|source| {
            let line = source.line();
            Error::Parse { path, line, source }
        })?;
        let mut trainings = Vec::new();
        read_lines(&run_folder.join("metrics.jsonl"), |line| add_metrics(&mut trainings, line))?;
        let mut samples = Vec::new();
        read_lines(&run_folder.join(samples::FILE), |line| {
            samples.push(samples::parse(line)?);
            Ok(())
        })?;
        let recipe = read_if_there(&run_folder.join("recipe.resolved.yaml"))?;
        Ok(RunRecord { summary, trainings, samples, recipe })
    }
}

#[derive(Deserialize)]
struct LineHead {
    #[serde(default)]
    stage: String,
}

fn add_metrics(trainings: &mut Vec<Training>, line: &str) -> Result<(), serde_json::Error> {
    let value: Value = serde_json::from_str(line)?;
    let LineHead { stage } = serde_json::from_value(value.clone())?;
    let known = trainings.iter().position(|training| training.stage == stage);
    let at = known.unwrap_or_else(|| {
        trainings.push(Training { stage, ..Training::default() });
        trainings.len() - 1
    });
    if value.get("val_loss").is_some() {
        trainings[at].validations.push(serde_json::from_value(value)?);
    } else {
        trainings[at].steps.push(serde_json::from_value(value)?);
    }
    Ok(())
}

fn read_if_there(path: &Path) -> Result<String, Error> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(source) => Err(Error::Read { path: path.to_owned(), source }),
    }
}

fn read_lines(
    path: &Path,
    mut take: impl FnMut(&str) -> Result<(), serde_json::Error>,
) -> Result<(), Error> {
    let text = read_if_there(path)?;
    for (index, line) in text.lines().enumerate() {
        let at = |source| Error::Parse { path: path.to_owned(), line: index + 1, source };
        take(line).map_err(at)?;
    }
    Ok(())
}
