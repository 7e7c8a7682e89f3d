//! trlx's sweep files: `tune_config` and flat keys with a `strategy` and `values`.
//!
//! Source: trlx `sweep.py` (strategies are Ray Tune's sampling functions of those names; values are
//! their arguments in order, or the options).

use super::space::{Axis, Domain, Space};
use crate::recipe::problem::Problem;
use crate::spec::recipe::sweep::{Mode, SamplerName, Sweep};
use serde_json::Value;

/// trlx's keys that mean a key of ours.
const KEYS: [(&str, &str); 13] = [
    ("optimizer.kwargs.lr", "model.optim.lr"),
    ("optimizer.kwargs.betas", "model.optim.betas"),
    ("optimizer.kwargs.eps", "model.optim.eps"),
    ("optimizer.kwargs.weight_decay", "model.optim.weight_decay"),
    ("scheduler.kwargs.eta_min", "model.optim.sched.min_lr"),
    ("scheduler.kwargs.T_max", "model.optim.sched.max_steps"),
    ("train.batch_size", "model.global_batch_size"),
    ("train.minibatch_size", "model.micro_batch_size"),
    ("train.seq_length", "model.encoder_seq_length"),
    ("train.total_steps", "trainer.max_steps"),
    ("train.eval_interval", "trainer.val_check_interval"),
    ("train.seed", "model.seed"),
    ("model.num_layers_unfrozen", "model.num_layers_unfrozen"),
];

/// Reads the entries of a sweep file of trlx's: its space, and the settings of its `tune_config`.
pub fn read(file: &[(String, Value)]) -> Result<(Space, Sweep), Vec<Problem>> {
    let mut problems = Vec::new();
    let mut space = Space::default();
    let mut sweep = Sweep::default();
    for (key, value) in file {
        let result = if key == "tune_config" {
            settings(value).map(|found| sweep = found)
        } else {
            axis(key, value).map(|axis| space.axes.push(axis))
        };
        problems.extend(result.err().map(|problem| *problem));
    }
    // A grid of trlx's is one key's strategy; with any other, values are drawn.
    if sweep.sampler.is_none() {
        sweep.sampler = Some(SamplerName::Random);
    }
    if problems.is_empty() { Ok((space, sweep)) } else { Err(problems) }
}

fn settings(value: &Value) -> Result<Sweep, Box<Problem>> {
    let text = |key: &str| value.get(key).and_then(Value::as_str);
    let refused = |key: &str, word: &str, help: &str| {
        let message = format!("`tune_config.{key}: {word}` is not known here");
        Err(Box::new(Problem::error("sweep::tune_config", message).help(help)))
    };
    let sampler = match text("search_alg") {
        None | Some("random") => SamplerName::Random,
        Some("bayesopt" | "bohb") => SamplerName::Tpe,
        Some(other) => {
            return refused(
                "search_alg",
                other,
                "use random, bayesopt or bohb (the last two are tpe here)",
            );
        }
    };
    let asha = match text("scheduler") {
        None | Some("fifo") => None,
        Some("hyperband" | "hyperbandforbohb") => Some(3),
        Some(other) => {
            return refused(
                "scheduler",
                other,
                "use fifo, hyperband or hyperbandforbohb (the last two are asha here)",
            );
        }
    };
    let mode = match text("mode") {
        None => None,
        Some("max") => Some(Mode::Max),
        Some("min") => Some(Mode::Min),
        Some(other) => return refused("mode", other, "use max or min"),
    };
    let trials = value.get("num_samples").and_then(Value::as_u64).map(|count| count as usize);
    Ok(Sweep {
        sampler: Some(sampler),
        asha,
        mode,
        trials,
        metric: text("metric").map(|metric| metric.trim_start_matches("metrics/").to_owned()),
        ..Sweep::default()
    })
}

fn axis(key: &str, value: &Value) -> Result<Axis, Box<Problem>> {
    let Some(ours) = ours(key) else {
        let method = key.starts_with("method.");
        let help = if method {
            "it is a setting of PPO or ILQL, which are not here: remove it"
        } else {
            "remove it, or write the recipe's own key"
        };
        let message = format!("`{key}` of the sweep file has no counterpart here");
        return Err(Box::new(Problem::error("sweep::foreign_key", message).help(help)));
    };
    let strategy = value.get("strategy").and_then(Value::as_str).unwrap_or_default();
    let values = value.get("values").and_then(Value::as_array).cloned().unwrap_or_default();
    let number = |at: usize| values.get(at).and_then(Value::as_f64);
    let wrong = || {
        let message = format!(
            "`{key}`: `{strategy}` with {} values is not a way to choose one",
            values.len()
        );
        Box::new(Problem::error("sweep::strategy", message).help(
            "use uniform, loguniform, randn, randint, lograndint (and with q in front), choice or grid, \
             with the values that they take",
        ))
    };
    let two = || number(0).zip(number(1)).ok_or_else(wrong);
    let domain = match strategy {
        "uniform" | "quniform" | "loguniform" | "qloguniform" => {
            let (low, high) = two()?;
            let step = number(2).filter(|_| strategy.starts_with('q'));
            Domain::Float { low, high, log: strategy.contains("log"), step }
        }
        "randn" | "qrandn" => {
            let (mean, deviation) = two()?;
            Domain::Normal {
                mean,
                deviation,
                step: number(2).filter(|_| strategy.starts_with('q')),
            }
        }
        "randint" | "qrandint" | "lograndint" | "qlograndint" => {
            let (low, high) = two()?;
            // Ray's upper end is left out, but for the quantized ones.
            let quantized = strategy.starts_with('q');
            let high = if quantized { high } else { high - 1.0 };
            let step = number(2).filter(|_| quantized).map(|step| step as i64);
            Domain::Integer {
                low: low as i64,
                high: high as i64,
                log: strategy.contains("log"),
                step,
            }
        }
        "choice" | "grid" if !values.is_empty() => {
            let typed = |value: &Value| vec![value.to_string()];
            Domain::Choice(values.iter().map(typed).collect())
        }
        _ => return Err(wrong()),
    };
    Ok(Axis { keys: vec![ours], domain })
}

fn ours(key: &str) -> Option<String> {
    let known = KEYS.iter().find(|(theirs, _)| *theirs == key).map(|(_, ours)| (*ours).to_owned());
    let direct = ["model.optim.", "trainer.", "vars."].iter().any(|start| key.starts_with(start));
    known.or_else(|| direct.then(|| key.to_owned()))
}
