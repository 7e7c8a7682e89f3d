//! What a sweep tries: axes in Hydra's grammar, each with a domain; a trial is a value for each.

use crate::recipe::overrides::{Form, expand_sweep, tried};
use crate::recipe::problem::Problem;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The axes of a sweep, in order; on a grid the last varies fastest.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Space {
    /// What varies.
    pub axes: Vec<Axis>,
    /// Overrides that every trial has.
    pub fixed: Vec<String>,
}

/// What varies together: one key, or several that are zipped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Axis {
    /// The keys, with their signs (`++a.b`).
    pub keys: Vec<String>,
    /// Their values.
    pub domain: Domain,
}

/// The values of an axis.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Domain {
    /// One of these; each has a value, as it is typed, for every key.
    Choice(Vec<Vec<String>>),
    /// A number from `low` to `high`.
    Float {
        /// The least.
        low: f64,
        /// The largest.
        high: f64,
        /// Even in the logarithm.
        log: bool,
        /// Rounded to multiples of it.
        step: Option<f64>,
    },
    /// A whole number from `low` to `high`, both included.
    Integer {
        /// The least.
        low: i64,
        /// The largest.
        high: i64,
        /// Even in the logarithm.
        log: bool,
        /// Rounded to multiples of it.
        step: Option<i64>,
    },
    /// A normal number.
    Normal {
        /// Its mean.
        mean: f64,
        /// Its standard deviation.
        deviation: f64,
        /// Rounded to multiples of it.
        step: Option<f64>,
    },
}

impl Space {
    /// Reads overrides: those with several values are axes, the others belong to every trial.
    pub fn parse(overrides: &[String]) -> Result<Space, Vec<Problem>> {
        let mut space = Space::default();
        let mut problems = Vec::new();
        for text in overrides {
            match axis(text) {
                Ok(Some(axis)) => space.axes.push(axis),
                Ok(None) => space.fixed.push(text.clone()),
                Err(found) => problems.extend(found),
            }
        }
        if problems.is_empty() { Ok(space) } else { Err(problems) }
    }

    /// Reads the recipe's `sweep.parameters`.
    pub fn of_parameters(parameters: &[(String, Value)]) -> Result<Space, Vec<Problem>> {
        let texts: Result<Vec<String>, _> =
            parameters.iter().map(|(key, value)| override_of(key, value)).collect();
        Space::parse(&texts?)
    }

    /// Axes of `other` after these, in place of those with the same keys.
    pub fn extend(&mut self, other: Space) {
        self.axes.retain(|axis| !other.axes.iter().any(|new| new.names() == axis.names()));
        self.axes.extend(other.axes);
        self.fixed.extend(other.fixed);
    }
}

impl Space {
    /// The keys whose values lie evenly in the logarithm.
    pub fn log_keys(&self) -> Vec<String> {
        let logs = self.axes.iter().filter(|axis| {
            matches!(
                axis.domain,
                Domain::Float { log: true, .. } | Domain::Integer { log: true, .. }
            )
        });
        logs.flat_map(Axis::names).collect()
    }

    /// The keys that have several values.
    pub fn varied(&self) -> Vec<String> {
        let varies = |axis: &Axis, at: usize| match &axis.domain {
            Domain::Choice(rows) => rows.iter().any(|row| row.get(at) != rows[0].get(at)),
            _ => true,
        };
        let names = self.axes.iter().flat_map(|axis| {
            axis.names().into_iter().enumerate().filter(move |(at, _)| varies(axis, *at))
        });
        names.map(|(_, name)| name).collect()
    }
}

impl Axis {
    /// The keys without their signs.
    pub fn names(&self) -> Vec<String> {
        self.keys.iter().map(|key| name(key).to_owned()).collect()
    }
}

/// A key without `+` and `++`.
pub fn name(key: &str) -> &str {
    key.trim_start_matches('+')
}

/// A list, or Hydra's grammar, as an override.
fn override_of(key: &str, value: &Value) -> Result<String, Vec<Problem>> {
    let typed = |item: &Value| match item {
        Value::String(text) if text.contains([',', '(', ')', '{', '[', '\'']) => {
            format!("\"{}\"", text.replace('"', "\\\""))
        }
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    match value {
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(typed).collect();
            Ok(format!("{key}=choice({})", items.join(",")))
        }
        Value::String(text) => Ok(format!("{key}={text}")),
        other => Err(vec![
            Problem::error(
                "sweep::values",
                format!("`sweep.parameters.{key}` is {other}, not values to try"),
            )
            .help("write a list, or Hydra's grammar as text: \"1e-4,3e-4\", \"range(0,3)\""),
        ]),
    }
}

fn axis(text: &str) -> Result<Option<Axis>, Vec<Problem>> {
    if let Some(inside) = text.strip_prefix("zip(").and_then(|rest| rest.strip_suffix(')')) {
        return zipped(text, inside).map(Some);
    }
    let Some(found) = tried(text).map_err(|problem| vec![*problem])? else { return Ok(None) };
    let key = text.split('=').next().unwrap_or_default().trim().to_owned();
    let log = found.tags.iter().any(|tag| tag == "log");
    let domain = match found.form {
        Form::Interval(low, high) => Domain::Float { low, high, log, step: None },
        Form::IntegerInterval(low, high) => Domain::Integer { low, high, log, step: None },
        _ => {
            let runs = expand_sweep(&[text.to_owned()])?;
            Domain::Choice(
                runs.into_iter().map(|run| run.iter().map(|one| value(one)).collect()).collect(),
            )
        }
    };
    check(text, &domain)?;
    Ok(Some(Axis { keys: vec![key], domain }))
}

/// `zip(a=choice(1,2),b=choice(x,y))`: the first values together, then the second ones.
fn zipped(text: &str, inside: &str) -> Result<Axis, Vec<Problem>> {
    let wrong = |message: String| {
        let help = "write zip(a=choice(1,2),b=choice(x,y)): as many values for each key";
        vec![Problem::error("sweep::zip", message).help(help)]
    };
    let mut keys = Vec::new();
    let mut columns: Vec<Vec<String>> = Vec::new();
    for part in split(inside) {
        let axis =
            axis(part)?.ok_or_else(|| wrong(format!("`{part}` in a zip has no values to try")))?;
        let Domain::Choice(values) = axis.domain else {
            return Err(wrong(format!("`{part}` in a zip has no list of values")));
        };
        keys.extend(axis.keys);
        columns.push(values.into_iter().flatten().collect());
    }
    let length = columns.first().map_or(0, Vec::len);
    if length == 0 || columns.iter().any(|column| column.len() != length) {
        return Err(wrong(format!("`{text}` zips lists of different lengths")));
    }
    let rows = (0..length).map(|at| columns.iter().map(|column| column[at].clone()).collect());
    Ok(Axis { keys, domain: Domain::Choice(rows.collect()) })
}

/// Parts between commas that stand in no bracket and no quotes.
fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut depth, mut quote) = (Vec::new(), 0, 0_usize, None);
    for (at, byte) in text.bytes().enumerate() {
        match (quote, byte) {
            (Some(open), _) if byte == open => quote = None,
            (None, b'\'' | b'"') => quote = Some(byte),
            (None, b'(' | b'[' | b'{') => depth += 1,
            (None, b')' | b']' | b'}') => depth = depth.saturating_sub(1),
            (None, b',') if depth == 0 => {
                parts.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(text[start..].trim());
    parts
}

/// The value of an override as it is typed.
fn value(text: &str) -> String {
    text.split_once('=').map_or("", |(_, value)| value).to_owned()
}

fn check(text: &str, domain: &Domain) -> Result<(), Vec<Problem>> {
    let fits = match domain {
        Domain::Choice(values) => !values.is_empty(),
        Domain::Float { low, high, log, .. } => {
            low.is_finite() && high.is_finite() && low < high && (!log || *low > 0.0)
        }
        Domain::Integer { low, high, log, .. } => low < high && (!log || *low > 0),
        Domain::Normal { mean, deviation, .. } => mean.is_finite() && *deviation > 0.0,
    };
    if fits {
        return Ok(());
    }
    let message = format!("`{text}` leaves nothing to try");
    let help = "an interval goes from a smaller to a larger number, above 0 with tag(log,…)";
    Err(vec![Problem::error("sweep::values", message).help(help)])
}
