//! The values of a trial: from a grid, by chance, or by a Parzen estimator over the trials before.
//!
//! Each is a function of the seed, the trial's number and the results it is told of, so that a sweep
//! that is resumed, or run again, tries the same. The estimator is the `optimizer` crate's; it is
//! asked for one key at a time, with that key's history, because it tells keys apart by their ranges.

use super::space::{Axis, Domain, Space};
use crate::base::python_text::python_float;
use crate::base::seed::Stream;
use crate::spec::recipe::sweep::SamplerName;
use optimizer::distribution::{
    CategoricalDistribution, Distribution, FloatDistribution, IntDistribution,
};
use optimizer::param::ParamValue;
use optimizer::parameter::ParamId;
use optimizer::sampler::tpe::TpeSampler;
use optimizer::sampler::{CompletedTrial, Sampler};
use serde::{Deserialize, Serialize};

/// Trials of the estimator that are drawn by chance before it has something to go by.
const STARTUP: usize = 10;
/// Values of a key that the estimator weighs against each other. Few, so that it does not settle.
const CANDIDATES: usize = 8;
/// The share of the trials that count as good.
const GOOD: f64 = 0.1;
/// The width of the estimator's kernels as a share of the range. By itself the crate takes it from
/// the spread of the few good trials, and then does no better than chance over 30 trials.
const KERNEL: f64 = 0.1;

/// A value of an axis.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Point {
    /// A number.
    Float(f64),
    /// A whole number.
    Integer(i64),
    /// Which of the choices.
    Choice(usize),
}

/// A finished trial, for the estimator.
#[derive(Clone, Debug, PartialEq)]
pub struct Past {
    /// Its points.
    pub points: Vec<Point>,
    /// Its result; small is good.
    pub cost: f64,
}

/// Trials of a sweep; none when the axes have no end and `trials` is not given.
pub fn count(space: &Space, sampler: SamplerName, trials: usize) -> Result<usize, String> {
    if sampler != SamplerName::Grid {
        return Ok(trials);
    }
    let mut count = 1_usize;
    for axis in &space.axes {
        let Domain::Choice(values) = &axis.domain else {
            let names = axis.names().join(", ");
            return Err(format!(
                "`{names}` is an interval, which a grid cannot list: use --sampler random or tpe"
            ));
        };
        count = count.saturating_mul(values.len());
    }
    if count > 100_000 { Err(format!("{count} trials are too many")) } else { Ok(count) }
}

/// The points of trial `number`; `past` are the trials before it whose results it may use.
pub fn points(
    space: &Space,
    sampler: SamplerName,
    seed: u64,
    number: usize,
    past: &[Past],
) -> Vec<Point> {
    let mut points = Vec::with_capacity(space.axes.len());
    for (at, axis) in space.axes.iter().enumerate() {
        points.push(match sampler {
            SamplerName::Grid => grid(&space.axes[at + 1..], axis, number),
            SamplerName::Tpe if past.len() >= STARTUP => {
                estimated(axis, seed, number, past.iter().map(|past| (past.points[at], past.cost)))
                    .unwrap_or_else(|| drawn(axis, seed, number))
            }
            SamplerName::Random | SamplerName::Tpe => drawn(axis, seed, number),
        });
    }
    points
}

/// The last axis varies fastest.
fn grid(after: &[Axis], axis: &Axis, number: usize) -> Point {
    let size = |axis: &Axis| match &axis.domain {
        Domain::Choice(values) => values.len().max(1),
        _ => 1,
    };
    let below: usize = after.iter().map(size).product();
    Point::Choice(number / below.max(1) % size(axis))
}

fn stream(axis: &Axis, seed: u64) -> Stream {
    Stream::new(seed, &format!("sweep/{}", axis.names().join(",")))
}

#[expect(clippy::cast_sign_loss, reason = "a share of a count is not negative")]
fn drawn(axis: &Axis, seed: u64, number: usize) -> Point {
    let (stream, position) = (stream(axis, seed), number as u64);
    let share = stream.uniform(position);
    match &axis.domain {
        Domain::Choice(values) => {
            Point::Choice(((share * values.len() as f64) as usize).min(values.len() - 1))
        }
        Domain::Float { low, high, log: true, step } => {
            let value = (low.ln() + share * (high.ln() - low.ln())).exp();
            Point::Float(stepped(value, *step).clamp(*low, *high))
        }
        Domain::Float { low, high, log: false, step } => {
            Point::Float(stepped(low + share * (high - low), *step).clamp(*low, *high))
        }
        Domain::Integer { low, high, log, step } => {
            // Half a unit beyond both ends, so that the ends are as likely as the rest.
            let (first, last) = (*low as f64 - 0.5, *high as f64 + 0.5);
            let value = if *log {
                let first = first.max(0.5);
                (first.ln() + share * (last.ln() - first.ln())).exp()
            } else {
                first + share * (last - first)
            };
            let value = stepped(value.round(), step.map(|step| step as f64));
            Point::Integer((value as i64).clamp(*low, *high))
        }
        Domain::Normal { mean, deviation, step } => {
            Point::Float(stepped(mean + deviation * stream.normal(position), *step))
        }
    }
}

fn stepped(value: f64, step: Option<f64>) -> f64 {
    step.filter(|step| *step > 0.0).map_or(value, |step| (value / step).round() * step)
}

/// What the estimator proposes; none for an axis that it cannot model.
fn estimated(
    axis: &Axis,
    seed: u64,
    number: usize,
    past: impl Iterator<Item = (Point, f64)>,
) -> Option<Point> {
    let distribution = distribution(&axis.domain)?;
    let id = ParamId::new();
    let history: Vec<CompletedTrial> = past
        .enumerate()
        .map(|(at, (point, cost))| {
            let value = match point {
                Point::Float(value) => ParamValue::Float(value),
                Point::Integer(value) => ParamValue::Int(value),
                Point::Choice(value) => ParamValue::Categorical(value),
            };
            let values = std::iter::once((id, value)).collect();
            let ranges = std::iter::once((id, distribution.clone())).collect();
            let labels = std::iter::once((id, String::new())).collect();
            CompletedTrial::new(at as u64, values, ranges, labels, cost)
        })
        .collect();
    let seed = stream(axis, seed).word(number as u64);
    let sampler = TpeSampler::builder()
        .seed(seed)
        .n_startup_trials(STARTUP)
        .n_ei_candidates(CANDIDATES)
        .gamma(GOOD)
        .kde_bandwidth(KERNEL * range(&axis.domain));
    let sampler = sampler.build().ok()?;
    Some(match sampler.sample(&distribution, number as u64, &history) {
        ParamValue::Float(value) => Point::Float(value),
        ParamValue::Int(value) => Point::Integer(value),
        ParamValue::Categorical(value) => Point::Choice(value),
    })
}

/// The length of a domain, in the logarithm where that is what is even.
fn range(domain: &Domain) -> f64 {
    let length = |low: f64, high: f64, log: bool| if log { (high / low).ln() } else { high - low };
    match domain {
        Domain::Float { low, high, log, .. } => length(*low, *high, *log),
        Domain::Integer { low, high, log, .. } => length(*low as f64, *high as f64, *log),
        Domain::Choice(_) | Domain::Normal { .. } => 1.0,
    }
}

fn distribution(domain: &Domain) -> Option<Distribution> {
    Some(match domain {
        Domain::Choice(values) => {
            Distribution::Categorical(CategoricalDistribution { n_choices: values.len() })
        }
        Domain::Float { low, high, log, step } => {
            // With a logarithm the crate has no steps; values are rounded when they are typed.
            let step = step.filter(|_| !log);
            Distribution::Float(FloatDistribution { low: *low, high: *high, log_scale: *log, step })
        }
        Domain::Integer { low, high, log, step } => {
            let step = step.filter(|_| !log);
            Distribution::Int(IntDistribution { low: *low, high: *high, log_scale: *log, step })
        }
        Domain::Normal { .. } => return None,
    })
}

/// Each key of a trial with its value as it is typed.
pub fn typed(space: &Space, points: &[Point]) -> Vec<(String, String)> {
    let mut values = Vec::new();
    for (axis, point) in space.axes.iter().zip(points) {
        match (point, &axis.domain) {
            (Point::Choice(at), Domain::Choice(choices)) => {
                let row = choices.get(*at).cloned().unwrap_or_default();
                values.extend(axis.keys.iter().cloned().zip(row));
            }
            (Point::Integer(value), _) => {
                values.extend(axis.keys.iter().map(|key| (key.clone(), value.to_string())));
            }
            (Point::Float(value), _) => {
                values.extend(axis.keys.iter().map(|key| (key.clone(), python_float(*value))));
            }
            (Point::Choice(_), _) => {}
        }
    }
    values
}
