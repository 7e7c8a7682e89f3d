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
///
/// Lines of one stage stand together; a stage that starts again begins without its old ones.
#[derive(Debug)]
pub struct MetricsLog {
    path: PathBuf,
    /// Whether lines name their stage: when a run trains more than once.
    tagged: bool,
    /// The file of the last run of the same recipe, by which a resumed stage's lines are known.
    old: Vec<(Option<String>, Line)>,
    stage: Option<String>,
    file: File,
}

impl MetricsLog {
    /// The file at `path`, which is made when it is missing and kept when it is there.
    pub fn open(path: &Path, tagged: bool) -> Result<MetricsLog, Error> {
        let wrong = |source| Error::File { path: path.into(), source };
        let file = OpenOptions::new().append(true).create(true).open(path).map_err(wrong)?;
        // Lines that this version cannot read are another version's: there is nothing to go on with.
        let old = read(path).unwrap_or_default();
        Ok(MetricsLog { path: path.into(), tagged, old, stage: None, file })
    }

    /// Begins with the lines of `stage`: its old ones go, other stages' stay.
    pub fn begin(&mut self, stage: &str) -> Result<(), Error> {
        self.stage = self.tagged.then(|| stage.to_owned());
        self.keep(0)
    }

    /// Takes the stage's old lines back, up to `step`.
    pub fn resume(&mut self, step: u64) -> Result<(), Error> {
        self.keep(step)
    }

    /// Adds a line; it is in the file when this returns.
    pub fn append(&mut self, line: &Line) -> Result<(), Error> {
        let text = self.json(line, self.stage.as_deref())?;
        let written = self.file.write_all(format!("{text}\n").as_bytes());
        written.map_err(|source| Error::File { path: self.path.clone(), source })
    }

    /// Puts the stage's own record in place of what was written here.
    pub fn replace(&mut self, stage: &str, lines: &[Line]) -> Result<(), Error> {
        self.begin(stage)?;
        let texts = lines.iter().map(|line| self.json(line, self.stage.as_deref()));
        let text = texts
            .collect::<Result<Vec<_>, _>>()?
            .iter()
            .flat_map(|line| [line.as_str(), "\n"])
            .collect::<String>();
        self.add(&text)
    }

    /// Rewrites the file: other stages' lines, and this stage's old ones up to `step`.
    fn keep(&mut self, step: u64) -> Result<(), Error> {
        let (mine, others): (Vec<_>, Vec<_>) = read(&self.path)
            .unwrap_or_default()
            .into_iter()
            .partition(|(stage, _)| *stage == self.stage);
        if !mine.is_empty() {
            self.old.retain(|(stage, _)| *stage != self.stage);
            self.old.extend(mine);
        }
        let old =
            self.old.iter().filter(|(stage, line)| *stage == self.stage && line.step() <= step);
        let mut text = String::new();
        for (stage, line) in others.iter().chain(old) {
            text += &self.json(line, stage.as_deref())?;
            text.push('\n');
        }
        self.write(&text)
    }

    fn add(&mut self, text: &str) -> Result<(), Error> {
        let wrong = |source| Error::File { path: self.path.clone(), source };
        let before = fs::read_to_string(&self.path).map_err(wrong)?;
        self.write(&(before + text))
    }

    fn write(&mut self, text: &str) -> Result<(), Error> {
        let wrong = |source| Error::File { path: self.path.clone(), source };
        crate::base::atomic_file::write(&self.path, text.as_bytes()).map_err(wrong)?;
        self.file = OpenOptions::new().append(true).open(&self.path).map_err(wrong)?;
        Ok(())
    }

    fn json(&self, line: &Line, stage: Option<&str>) -> Result<String, Error> {
        let wrong = |error: serde_json::Error| Error::File {
            path: self.path.clone(),
            source: error.into(),
        };
        line.to_json(stage).map_err(wrong)
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
            grad_norm: Some(0.5),
            loss_scale: None,
            tokens: 4096,
            learned_tokens: 700,
            tokens_per_second: 12_345.678,
        })
    }

    #[test]
    fn a_resumed_run_is_cut_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let validation = Line::Validation(ValidationMetrics {
            step: 2,
            consumed_samples: 64,
            val_loss: 2.0,
            metrics: std::collections::BTreeMap::new(),
        });
        let mut killed = MetricsLog::open(&path, false).unwrap();
        killed.begin("train").unwrap();
        for line in [step(1), step(2), validation.clone(), step(3)] {
            killed.append(&line).unwrap();
        }
        let mut log = MetricsLog::open(&path, false).unwrap();
        log.begin("train").unwrap();
        assert_eq!(read(&path).unwrap(), []);
        log.resume(2).unwrap();
        log.append(&step(3)).unwrap();
        let lines: Vec<Line> = read(&path).unwrap().into_iter().map(|(_, line)| line).collect();
        assert_eq!(lines, [step(1), step(2), validation, step(3)]);
    }

    #[test]
    fn two_trainings_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut log = MetricsLog::open(&path, true).unwrap();
        for stage in ["base", "tune"] {
            log.begin(stage).unwrap();
            log.append(&step(1)).unwrap();
        }
        log.replace("base", &[step(1), step(2)]).unwrap();
        log.begin("tune").unwrap();
        let stages: Vec<_> = read(&path).unwrap().into_iter().map(|(stage, _)| stage).collect();
        assert_eq!(stages, [Some("base".to_owned()), Some("base".to_owned())]);
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
