//! `metrics.jsonl`: a line per optimizer step and per validation, written while training runs.

use crate::spec::event::{StepMetrics, ValidationMetrics};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// One line of the file.
#[derive(Clone, Debug, PartialEq)]
pub enum Line {
    /// A step.
    Step(StepMetrics),
    /// A validation.
    Validation(ValidationMetrics),
}

/// What tells a step's line from a validation's, and whose line it is.
#[derive(Deserialize)]
struct Head {
    stage: Option<String>,
    val_loss: Option<f64>,
}

/// A line with the stage that wrote it, where a run trains more than once.
#[derive(Serialize)]
struct Tagged<'line, T> {
    #[serde(skip_serializing_if = "Option::is_none")]
    stage: Option<&'line str>,
    #[serde(flatten)]
    line: &'line T,
}

impl Line {
    /// Steps done when the line was written.
    pub fn step(&self) -> u64 {
        match self {
            Line::Step(metrics) => metrics.step,
            Line::Validation(metrics) => metrics.step,
        }
    }

    /// The step's metrics, when it is a step's line.
    pub fn as_step(&self) -> Option<&StepMetrics> {
        if let Line::Step(metrics) = self { Some(metrics) } else { None }
    }

    /// The validation's metrics, when it is a validation's line.
    pub fn as_validation(&self) -> Option<&ValidationMetrics> {
        if let Line::Validation(metrics) = self { Some(metrics) } else { None }
    }

    /// The JSON text, with the stage's name when there is one.
    pub fn to_json(&self, stage: Option<&str>) -> serde_json::Result<String> {
        match self {
            Line::Step(line) => serde_json::to_string(&Tagged { stage, line }),
            Line::Validation(line) => serde_json::to_string(&Tagged { stage, line }),
        }
    }

    fn from_json(text: &str) -> serde_json::Result<(Option<String>, Line)> {
        let head: Head = serde_json::from_str(text)?;
        let line = if head.val_loss.is_some() {
            Line::Validation(serde_json::from_str(text)?)
        } else {
            Line::Step(serde_json::from_str(text)?)
        };
        Ok((head.stage, line))
    }
}

/// A metrics file cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system refused.
    #[error("cannot use {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line is no metrics line.
    #[error("{path}:{line} is not a line of metrics")]
    Line {
        /// The file.
        path: PathBuf,
        /// Its number, from 1.
        line: usize,
        /// Why.
        source: serde_json::Error,
    },
}

/// The lines of the file at `path` in order, each with its stage when it names one.
///
/// A last line that was cut off by a kill (no line end) is left out.
pub fn read(path: &Path) -> Result<Vec<(Option<String>, Line)>, Error> {
    let text =
        fs::read_to_string(path).map_err(|source| Error::File { path: path.into(), source })?;
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let parse = |(index, line): (usize, &str)| {
        Line::from_json(line).map_err(|source| Error::Line {
            path: path.into(),
            line: index + 1,
            source,
        })
    };
    whole.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()).map(parse).collect()
}

/// The file while its run goes on.
#[derive(Debug)]
pub struct MetricsLog {
    path: PathBuf,
    file: File,
    stage: Option<String>,
}

impl MetricsLog {
    /// Starts an empty file, in place of one that lies there.
    pub fn create(path: &Path) -> Result<MetricsLog, Error> {
        let file =
            File::create(path).map_err(|source| Error::File { path: path.into(), source })?;
        Ok(MetricsLog { path: path.into(), file, stage: None })
    }

    /// Names the stage of the lines that follow.
    pub fn set_stage(&mut self, stage: Option<String>) {
        self.stage = stage;
    }

    /// Adds a line; it is in the file when this returns.
    pub fn append(&mut self, line: &Line) -> Result<(), Error> {
        let wrong = |source: io::Error| Error::File { path: self.path.clone(), source };
        let text = line.to_json(self.stage.as_deref()).map_err(|error| wrong(error.into()))?;
        self.file.write_all(format!("{text}\n").as_bytes()).map_err(wrong)
    }

    /// Starts again from `lines` (those of a partial run that goes on), cut back to `step`.
    pub fn restart(&mut self, lines: &[Line], step: u64) -> Result<(), Error> {
        let mut kept: Vec<String> = Vec::new();
        for (stage, line) in read(&self.path)? {
            if stage != self.stage {
                kept.push(self.json(&line, stage.as_deref())?);
            }
        }
        for line in lines.iter().filter(|line| line.step() <= step) {
            kept.push(self.json(line, self.stage.as_deref())?);
        }
        let text: String = kept.iter().flat_map(|line| [line.as_str(), "\n"]).collect();
        self.replace(&text).map_err(|source| Error::File { path: self.path.clone(), source })
    }

    fn json(&self, line: &Line, stage: Option<&str>) -> Result<String, Error> {
        let wrong = |error: serde_json::Error| Error::File {
            path: self.path.clone(),
            source: error.into(),
        };
        line.to_json(stage).map_err(wrong)
    }

    fn replace(&mut self, text: &str) -> io::Result<()> {
        crate::base::atomic_file::write(&self.path, text.as_bytes())?;
        self.file = OpenOptions::new().append(true).open(&self.path)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(step: u64) -> Line {
        Line::Step(StepMetrics {
            step,
            consumed_samples: step * 32,
            reduced_train_loss: 1.0 / step as f64,
            lr: 3e-3,
            grad_norm: 0.5,
            tokens: 4096,
            learned_tokens: 700,
            tokens_per_second: 12_345.678,
        })
    }

    #[test]
    fn a_resumed_run_is_cut_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut log = MetricsLog::create(&path).unwrap();
        log.append(&step(1)).unwrap();
        let validation =
            Line::Validation(ValidationMetrics { step: 2, consumed_samples: 64, val_loss: 2.0 });
        log.restart(&[step(1), step(2), validation.clone(), step(3)], 2).unwrap();
        log.append(&step(3)).unwrap();
        let lines: Vec<Line> = read(&path).unwrap().into_iter().map(|(_, line)| line).collect();
        assert_eq!(lines, [step(1), step(2), validation, step(3)]);
    }

    #[test]
    fn two_trainings_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut log = MetricsLog::create(&path).unwrap();
        log.set_stage(Some("base".to_owned()));
        log.append(&step(1)).unwrap();
        log.set_stage(Some("tune".to_owned()));
        log.append(&step(1)).unwrap();
        log.restart(&[], 0).unwrap();
        let stages: Vec<_> = read(&path).unwrap().into_iter().map(|(stage, _)| stage).collect();
        assert_eq!(stages, [Some("base".to_owned())]);
    }

    #[test]
    fn a_line_cut_off_by_a_kill_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let line = step(1).to_json(None).unwrap();
        crate::base::atomic_file::write(&path, format!("{line}\n{{\"step\": 2,").as_bytes())
            .unwrap();
        assert_eq!(read(&path).unwrap(), [(None, step(1))]);
    }
}
