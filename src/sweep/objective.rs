//! What a trial came to: the numbers of its run, and the one that is compared.

use crate::base::suggest;
use crate::report::record::{RunRecord, Training};
use crate::spec::job::Job;
use crate::spec::recipe::sweep::Mode;
use std::collections::BTreeMap;

/// The numbers of a run by name: `val_loss`, `best_val_loss` and `train_loss` of its last training,
/// and `STAGE.METRIC` of its evaluations.
pub fn numbers(record: &RunRecord) -> BTreeMap<String, f64> {
    let mut numbers = BTreeMap::new();
    if let Some(training) = record.trainings.last() {
        let losses = training.validations.iter().map(|one| one.val_loss);
        numbers.extend(losses.clone().next_back().map(|loss| ("val_loss".to_owned(), loss)));
        let best = losses.min_by(f64::total_cmp);
        numbers.extend(best.map(|loss| ("best_val_loss".to_owned(), loss)));
        numbers.extend(train_loss(training).map(|loss| ("train_loss".to_owned(), loss)));
    }
    for stage in &record.summary.stages {
        let named =
            stage.metrics.iter().map(|(name, value)| (format!("{}.{name}", stage.name), *value));
        numbers.extend(named);
    }
    numbers
}

/// The names of the numbers that a run of these stages will have.
pub fn names<'a>(stages: impl Iterator<Item = (&'a str, &'a Job)>) -> Vec<String> {
    let mut names = Vec::new();
    for (stage, job) in stages {
        match job {
            Job::Train(job) if job.trainer.val_check_interval > 0 => {
                names.extend(["train_loss", "val_loss", "best_val_loss"].map(str::to_owned));
            }
            Job::Train(_) => names.push("train_loss".to_owned()),
            Job::Evaluate(job) => {
                let metrics = job.stage.metrics.iter();
                names.extend(metrics.map(|metric| format!("{stage}.{}", metric.name())));
            }
            _ => {}
        }
    }
    names
}

/// The mean over the last tenth of the logged steps.
fn train_loss(training: &Training) -> Option<f64> {
    let steps = &training.steps;
    let tail = &steps[steps.len() - steps.len().div_ceil(10)..];
    let sum: f64 = tail.iter().map(|step| step.reduced_train_loss).sum();
    (!tail.is_empty()).then(|| sum / tail.len() as f64)
}

/// The number called `metric`, or the only one whose name ends with it; else what there is.
pub fn chosen(numbers: &BTreeMap<String, f64>, metric: &str) -> Result<f64, String> {
    let names = || numbers.keys().map(String::as_str);
    match meant(names(), metric).and_then(|name| numbers.get(name)) {
        Some(value) => Ok(*value),
        None => {
            Err(format!("the run has no metric `{metric}`; it has {}", suggest::listed(names())))
        }
    }
}

/// The one of `names` that is `metric`, or the only one that is a stage's metric of this name.
pub fn meant<'a>(names: impl Iterator<Item = &'a str> + Clone, metric: &str) -> Option<&'a str> {
    if let Some(name) = names.clone().find(|name| *name == metric) {
        return Some(name);
    }
    let end = format!(".{metric}");
    let mut found = names.filter(|name| name.ends_with(&end));
    found.next().filter(|_| found.next().is_none())
}

/// The cost of a training that is paused after `step`: its loss up to there.
pub fn reached(training: &Training, metric: &str, step: u64) -> Option<f64> {
    match metric {
        "train_loss" => {
            let steps = training.steps.iter().filter(|one| one.step <= step).cloned().collect();
            train_loss(&Training { steps, ..Training::default() })
        }
        "val_loss" => {
            let before = training.validations.iter().rfind(|one| one.step <= step);
            before.map(|one| one.val_loss)
        }
        "best_val_loss" => {
            let before = training.validations.iter().filter(|one| one.step <= step);
            before.map(|one| one.val_loss).min_by(f64::total_cmp)
        }
        _ => None,
    }
}

/// Which end of a metric is best, when nobody says it.
pub fn best_is_small(metric: &str, mode: Option<Mode>) -> bool {
    let small = ["loss", "perplexity", "length"].iter().any(|word| metric.contains(word));
    mode.map_or(small, |mode| mode == Mode::Min)
}
