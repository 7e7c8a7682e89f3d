//! `metrics.jsonl`, a line for each logged step and each validation, and the trace of every step's
//! bits beside it; both are cut back when a run resumes.

use crate::base::atomic_file;
use crate::base::step_trace::{self, TraceFile, TracedStep};
use crate::spec::event::{StepMetrics, ValidationMetrics};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

/// What the lines that were kept end with.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Last {
    /// Loss of the last logged step.
    pub train_loss: Option<f64>,
    /// Loss of the last validation.
    pub validation_loss: Option<f64>,
    /// Metrics of the last validation, by their names in the log.
    pub metrics: BTreeMap<String, f64>,
}

/// The open files.
#[derive(Debug)]
pub struct Journal {
    lines: File,
    trace: TraceFile,
}

impl Journal {
    /// Opens the file at `path` and the trace beside it with what they say of the first `steps`
    /// steps; the rest is cut off. Gives the last losses that stay.
    pub fn open(path: &Path, steps: u64) -> io::Result<(Journal, Last)> {
        let kept = if path.exists() {
            kept_lines(&fs::read_to_string(path)?, steps)
        } else {
            String::new()
        };
        atomic_file::write(path, kept.as_bytes())?;
        let lines = OpenOptions::new().append(true).open(path)?;
        let trace = TraceFile::open(&path.with_file_name(step_trace::FILE), steps)?;
        Ok((Journal { lines, trace }, last(&kept)))
    }

    /// Adds what every step came to, whether it is logged or not.
    pub fn trace(&mut self, metrics: &StepMetrics) -> io::Result<()> {
        let StepMetrics { step, reduced_train_loss: loss, grad_norm, .. } = *metrics;
        let grad_norm = grad_norm.unwrap_or(f64::INFINITY);
        self.trace.push(&TracedStep { step, loss, grad_norm })
    }

    /// Adds a step's line.
    pub fn step(&mut self, metrics: &StepMetrics) -> io::Result<()> {
        self.line(metrics)
    }

    /// Adds a validation.
    pub fn validation(&mut self, metrics: &ValidationMetrics) -> io::Result<()> {
        self.line(metrics)
    }

    /// Makes the lines durable; called before a checkpoint takes its name.
    pub fn sync(&self) -> io::Result<()> {
        self.trace.sync()?;
        self.lines.sync_data()
    }

    /// One write for a line, so that a killed process leaves at most its last line broken.
    fn line(&mut self, metrics: &impl Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(metrics)?;
        line.push(b'\n');
        self.lines.write_all(&line)
    }
}

/// The part of every line that tells its step.
#[derive(Deserialize)]
struct Stamp {
    step: u64,
}

fn kept_lines(text: &str, steps: u64) -> String {
    let is_kept =
        |line: &&str| serde_json::from_str::<Stamp>(line).is_ok_and(|stamp| stamp.step <= steps);
    text.split_inclusive('\n').filter(|line| line.ends_with('\n')).filter(is_kept).collect()
}

fn last(lines: &str) -> Last {
    #[derive(Deserialize)]
    struct TrainLoss {
        reduced_train_loss: f64,
    }
    let mut last = Last::default();
    for line in lines.lines() {
        if let Ok(validation) = serde_json::from_str::<ValidationMetrics>(line) {
            (last.validation_loss, last.metrics) = (Some(validation.val_loss), validation.metrics);
        } else if let Ok(step) = serde_json::from_str::<TrainLoss>(line) {
            last.train_loss = Some(step.reduced_train_loss);
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(step: u64) -> StepMetrics {
        StepMetrics {
            step,
            consumed_samples: step * 8,
            reduced_train_loss: 1.5,
            lr: 0.1,
            grad_norm: Some(2.0),
            loss_scale: None,
            tokens: 64,
            learned_tokens: 20,
            tokens_per_second: 1e3,
        }
    }

    #[test]
    fn lines_after_the_checkpoint_are_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut journal = Journal::open(&path, 0).unwrap().0;
        for number in 1..=4 {
            journal.step(&step(number)).unwrap();
        }
        let metrics = BTreeMap::from([("val_metrics/avg_bleu".to_owned(), 3.0)]);
        journal
            .validation(&ValidationMetrics {
                step: 2,
                consumed_samples: 16,
                val_loss: 1.0,
                metrics: metrics.clone(),
            })
            .unwrap();
        journal.lines.write_all(b"{\"step\": 2, \"half a li").unwrap();
        let (mut journal, last) = Journal::open(&path, 2).unwrap();
        let (train_loss, validation_loss) = (Some(1.5), Some(1.0));
        assert_eq!(last, Last { train_loss, validation_loss, metrics });
        journal.step(&step(3)).unwrap();
        let steps: Vec<u64> = fs::read_to_string(&path)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str::<Stamp>(line).unwrap().step)
            .collect();
        assert_eq!(steps, [1, 2, 2, 3]);
    }

    #[test]
    fn a_line_is_the_event_as_json() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        Journal::open(&path, 0).unwrap().0.step(&step(1)).unwrap();
        let line = fs::read_to_string(&path).unwrap();
        assert_eq!(serde_json::from_str::<StepMetrics>(&line).unwrap(), step(1));
    }
}
