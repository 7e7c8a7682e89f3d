//! What is wrong with a sweep before its first trial: a metric that no trial has, another sweep in its place.

use crate::cli::failure::Failure;
use crate::plan::Plan;
use crate::recipe::suggest;
use crate::spec::job::Job;
use crate::sweep::{Domain, Header, Space, meant};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Refuses a metric that no trial will have.
pub(super) fn check_metric(plan: &Plan, metric: &str) -> Result<(), Failure> {
    let names = numbers(plan);
    if meant(names.iter().map(String::as_str), metric).is_some() {
        return Ok(());
    }
    let end = format!(".{metric}");
    let message = if names.iter().any(|name| name.ends_with(&end)) {
        format!("several numbers of a trial are called `{metric}`")
    } else {
        format!("a trial will have no number called `{metric}`")
    };
    let near = suggest::did_you_mean(metric, names.iter().map(String::as_str));
    let near = near.map(|near| format!("{near} ")).unwrap_or_default();
    let known = suggest::listed(names.iter().map(String::as_str));
    Err(Failure::wrong(message, format!("{near}--metric can be {known}")))
}

/// The names of the numbers that a run of `plan` ends with; see [`crate::sweep::numbers`].
fn numbers(plan: &Plan) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for stage in plan.stages() {
        match &stage.job {
            Job::Train(job) => {
                names.insert("train_loss".to_owned());
                let trainer = &job.trainer;
                if trainer.val_check_interval > 0 && trainer.limit_val_batches != Some(0) {
                    names.extend(["val_loss", "best_val_loss"].map(str::to_owned));
                }
            }
            Job::Evaluate(job) => {
                let metrics = job.stage.metrics.iter();
                names.extend(metrics.map(|metric| format!("{}.{}", stage.name, metric.name())));
            }
            _ => {}
        }
    }
    names
}

/// What differs between two sweeps, in the words of the command line.
pub(super) fn differences(before: &Header, now: &Header) -> Vec<String> {
    let [old, new] = [before, now].map(|header| json!(header));
    let word = |value: &Value| match value {
        Value::Null => "none".to_owned(),
        Value::String(text) => format!("`{text}`"),
        other => other.to_string(),
    };
    let mut told = Vec::new();
    for (key, what) in [
        ("recipe", "the recipe"),
        ("metric", "--metric"),
        ("sampler", "--sampler"),
        ("trials", "--trials"),
        ("seed", "--seed"),
        ("asha", "--asha"),
    ] {
        if old[key] != new[key] {
            told.push(format!("{what} was {}, now {}", word(&old[key]), word(&new[key])));
        }
    }
    if before.metric == now.metric && before.small_is_best != now.small_is_best {
        let mode = |header: &Header| if header.small_is_best { "min" } else { "max" };
        told.push(format!("--mode was {}, now {}", mode(before), mode(now)));
    }
    if before.space != now.space {
        told.push(format!(
            "what is tried was {}, now {}",
            word(&keys(&before.space).into()),
            word(&keys(&now.space).into())
        ));
    }
    if before.resolved != now.resolved || before.rungs != now.rungs && before.asha == now.asha {
        told.push("the recipe's values are other ones".to_owned());
    }
    if told.is_empty() {
        told.push("an earlier version of this program began it".to_owned());
    }
    told
}

/// `model.optim.lr, model.seed (12 values)`: the keys and how many values are listed for them.
fn keys(space: &Space) -> String {
    let listed = space.axes.iter().map(|axis| {
        let names = axis.names().join("+");
        match &axis.domain {
            Domain::Choice(values) => format!("{names} ({} values)", values.len()),
            _ => names,
        }
    });
    listed.chain(space.fixed.iter().cloned()).collect::<Vec<_>>().join(", ")
}
