//! Overrides with several values to lists of overrides with one value each.

use super::element::{Element, Parsed, Sweep, SweepKind};
use super::grammar;
use super::shown;
use crate::base::python_text::python_float;
use crate::base::seed::Stream;
use crate::recipe::place::{Place, SourceFile};
use crate::recipe::problem::Problem;
use crate::recipe::scalar::python_text;
use serde_yaml::Value;
use std::ops::Range;
use std::sync::Arc;

/// The most values of one range, and the most runs of one sweep.
const MAX_RUNS: usize = 100_000;

/// Every combination of the values of the overrides; the last override varies fastest. Each run
/// is a list of plain overrides in the order given.
///
/// An interval and a glob have no list of values: they are problems here.
pub fn expand_sweep(overrides: &[String]) -> Result<Vec<Vec<String>>, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut runs = vec![Vec::new()];
    for (index, text) in overrides.iter().enumerate() {
        let choices = match choices(text, index + 1) {
            Ok(choices) => choices,
            Err(problem) => {
                problems.push(*problem);
                continue;
            }
        };
        if runs.len().saturating_mul(choices.len()) > MAX_RUNS {
            let message = format!("the sweep has more than {MAX_RUNS} runs");
            problems.push(Problem::error("sweep::too_many", message));
            break;
        }
        let extend = |run: Vec<String>| {
            let with = |choice: &String| run.iter().cloned().chain([choice.clone()]).collect();
            choices.iter().map(with).collect::<Vec<Vec<String>>>()
        };
        runs = runs.into_iter().flat_map(extend).collect();
    }
    if problems.is_empty() { Ok(runs) } else { Err(problems) }
}

/// What an override tries.
#[derive(Clone, Debug, PartialEq)]
pub struct Tried {
    /// The dotted key.
    pub key: String,
    /// How the values are given.
    pub form: Form,
    /// Words of `tag(word,…)` for the search.
    pub tags: Vec<String>,
    /// The values as they are typed; none for an interval or a glob.
    pub values: Option<Vec<String>>,
}

/// How the values of a sweep are given.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Form {
    /// `a,b`.
    Simple,
    /// `choice(a,b)`.
    Choice,
    /// `range(0,10)`.
    Range,
    /// `interval(0,1)`: everything from the first number to the second.
    Interval(f64, f64),
    /// `int(interval(0,10))`: whole numbers.
    IntegerInterval(i64, i64),
    /// `glob(a*)`.
    Glob,
}

/// Reads one override; none when it has a single value.
pub fn tried(text: &str) -> Result<Option<Tried>, Box<Problem>> {
    let parsed = parse(text, 1)?;
    let Some(Element::Sweep(sweep)) = &parsed.value else { return Ok(None) };
    let form = match &sweep.kind {
        SweepKind::Choice { simple: true, .. } => Form::Simple,
        SweepKind::Choice { .. } => Form::Choice,
        SweepKind::Range { .. } => Form::Range,
        SweepKind::Glob { .. } => Form::Glob,
        SweepKind::Interval { start, end } => interval(start, end),
    };
    let (key, tags) = (parsed.key.join("."), sweep.tags.clone());
    Ok(Some(Tried { key, form, tags, values: values(sweep).ok() }))
}

fn interval(start: &Value, end: &Value) -> Form {
    if let (Some(start), Some(end)) = (start.as_i64(), end.as_i64()) {
        return Form::IntegerInterval(start, end);
    }
    let float = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
    Form::Interval(float(start), float(end))
}

fn parse(text: &str, number: usize) -> Result<Parsed, Box<Problem>> {
    grammar::parse(text).map_err(|error| {
        let message = format!("cannot read the override `{}`: {}", shown(text), error.message);
        let mut found = problem("override::syntax", message, text, number, error.at..error.at);
        found.help = error.help.map(str::to_owned);
        found
    })
}

fn problem(
    code: &'static str,
    message: String,
    text: &str,
    number: usize,
    span: Range<usize>,
) -> Box<Problem> {
    let file = Arc::new(SourceFile { name: format!("override {number}"), text: text.to_owned() });
    Box::new(Problem::error(code, message).at(Some(&Place { file, span }), "here"))
}

/// The overrides with one value each that one override stands for.
fn choices(text: &str, number: usize) -> Result<Vec<String>, Box<Problem>> {
    let parsed = parse(text, number)?;
    let Some(Element::Sweep(sweep)) = &parsed.value else { return Ok(vec![text.to_owned()]) };
    let key = text.get(..parsed.value_span.start).unwrap_or_default().trim_end();
    let values = values(sweep).map_err(|message| {
        problem("sweep::values", message, text, number, parsed.value_span.clone())
    })?;
    Ok(values.into_iter().map(|value| format!("{key}{value}")).collect())
}

/// The values of a sweep as they are typed on a command line.
pub(crate) fn values(sweep: &Sweep) -> Result<Vec<String>, String> {
    let values = match &sweep.kind {
        SweepKind::Choice { items, .. } => {
            items.iter().map(typed).collect::<Result<Vec<_>, _>>()?
        }
        SweepKind::Range { start, stop, step } => range(start, stop, step)?,
        SweepKind::Interval { .. } => {
            return Err("an interval has no list of values; it needs a search".to_owned());
        }
        SweepKind::Glob { .. } => {
            return Err("a glob picks config groups, which do not exist here".to_owned());
        }
    };
    if !sweep.shuffle {
        return Ok(values);
    }
    let order = Stream::new(0, "sweep shuffle").permutation(values.len());
    Ok(order.into_iter().filter_map(|at| values.get(at).cloned()).collect())
}

fn range(start: &Value, stop: &Value, step: &Value) -> Result<Vec<String>, String> {
    let whole = (start.as_i64(), stop.as_i64(), step.as_i64());
    let mut values = Vec::new();
    if let (Some(mut at), Some(stop), Some(step)) = whole {
        while if step > 0 { at < stop } else { at > stop } {
            values.push(at.to_string());
            at = at.checked_add(step).unwrap_or(stop);
            check_length(&values)?;
        }
        return Ok(values);
    }
    let float = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
    let (mut at, stop, step) = (float(start), float(stop), float(step));
    while if step > 0.0 { at < stop } else { at > stop } {
        values.push(python_float(at));
        at += step;
        check_length(&values)?;
    }
    Ok(values)
}

fn check_length(values: &[String]) -> Result<(), String> {
    if values.len() <= MAX_RUNS { Ok(()) } else { Err(format!("more than {MAX_RUNS} values")) }
}

/// A value as it is typed, so that reading it gives the same again.
fn typed(element: &Element) -> Result<String, String> {
    Ok(match element {
        Element::Word(Value::Null) => "null".to_owned(),
        Element::Word(Value::Bool(truth)) => truth.to_string(),
        Element::Word(Value::String(text)) => word(text),
        Element::Word(value) => python_text(value),
        Element::Quoted { text, quote } => quoted(text, *quote),
        Element::List(items) => {
            let items: Result<Vec<_>, _> = items.iter().map(typed).collect();
            format!("[{}]", items?.join(","))
        }
        Element::Map(pairs) => {
            let pairs: Result<Vec<_>, String> = pairs
                .iter()
                .map(|(key, item)| {
                    Ok(format!("{}:{}", typed(&Element::Word(key.clone()))?, typed(item)?))
                })
                .collect();
            format!("{{{}}}", pairs?.join(","))
        }
        Element::Sweep(_) => return Err("a sweep inside a value".to_owned()),
    })
}

/// An unquoted text as it was, or in quotes where it would read as something else.
fn word(text: &str) -> String {
    let again = grammar::parse(&format!("k={text}")).ok().and_then(|parsed| parsed.value);
    match again {
        Some(Element::Word(Value::String(read))) if read == text => text.to_owned(),
        _ => quoted(text, '\''),
    }
}

fn quoted(text: &str, quote: char) -> String {
    let mut typed = String::from(quote);
    let mut backslashes = 0;
    for character in text.chars() {
        if character == quote {
            // Backslashes before a quote count double.
            typed.extend(std::iter::repeat_n('\\', backslashes + 1));
        }
        backslashes = if character == '\\' { backslashes + 1 } else { 0 };
        typed.push(character);
    }
    typed.extend(std::iter::repeat_n('\\', backslashes));
    typed.push(quote);
    typed
}
