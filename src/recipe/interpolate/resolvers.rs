//! The functions of `${name:…}`: NeMo's arithmetic and OmegaConf's own.

use super::evaluate::{Evaluator, Holder, Outcome, Stuck, foreign_place};
use super::{MISSING, grammar};
use crate::base::suggest::did_you_mean;
use crate::recipe::problem::Problem;
use crate::recipe::scalar::{python_repr, python_text, whole};
use crate::recipe::tree::{Data, Node, key_text};
use serde_yaml::{Number, Value};
use std::ops::Range;

/// A call as it stands in a text.
pub(super) struct Call<'c> {
    pub(super) name: &'c str,
    pub(super) arguments: Vec<Node>,
    pub(super) span: &'c Range<usize>,
    pub(super) holder: Holder<'c>,
}

/// All names, each with the fewest and the most arguments.
const KNOWN: &[(&str, usize, usize)] = &[
    ("multiply", 2, 2),
    ("sum", 2, 2),
    ("divide_ceil", 2, 2),
    ("divide_floor", 2, 2),
    ("oc.env", 1, 2),
    ("oc.select", 1, 2),
    ("oc.decode", 1, 1),
    ("oc.create", 1, 1),
    ("oc.dict.keys", 1, 1),
    ("oc.dict.values", 1, 1),
];

/// Functions that exist elsewhere, and why not here.
const REFUSED: &[(&str, &str)] = &[
    (
        "now",
        "a recipe does not read the clock, so that it means the same tomorrow; use ${{ vars.x }} with --var x=…",
    ),
    ("hydra", "Hydra's own settings do not exist here; write the value"),
    ("gpu_name", "use ${{ gpu.name }}"),
    ("oc.deprecated", "write ${…} with the new key"),
];

/// The longest text or list that `multiply` repeats something to.
const MAX_REPEATED: usize = 1 << 20;

/// Evaluates a call.
pub(super) fn call(evaluator: &mut Evaluator, call: &Call) -> Outcome<Node> {
    let Some((_, fewest, most)) = KNOWN.iter().find(|(name, ..)| *name == call.name) else {
        return Err(unknown(evaluator, call));
    };
    let given = call.arguments.len();
    if given < *fewest || given > *most {
        let takes = if fewest == most { fewest.to_string() } else { format!("{fewest} or {most}") };
        let message = format!("`{}` takes {takes} arguments and got {given}", call.name);
        return Err(refuse(evaluator, call, "interpolation::arguments", message));
    }
    match (call.name, call.arguments.as_slice()) {
        ("oc.env", [name, rest @ ..]) => environment(evaluator, call, name, rest.first()),
        ("oc.select", [path, rest @ ..]) => select(evaluator, call, path, rest.first()),
        ("oc.decode", [text]) => decode(evaluator, call, text),
        ("oc.create", [value]) => create(evaluator, call, value),
        ("oc.dict.keys" | "oc.dict.values", [map]) => dictionary(evaluator, call, map),
        (_, [left, right]) => {
            let made = arithmetic(call.name, &left.to_value(), &right.to_value());
            let origin = &call.holder.node.origin;
            made.map(|value| Node::from_value(&value, origin))
                .map_err(|message| refuse(evaluator, call, "interpolation::arguments", message))
        }
        _ => Err(unknown(evaluator, call)),
    }
}

fn unknown(evaluator: &mut Evaluator, call: &Call) -> Stuck {
    let message = format!("there is no function `{}`", call.name);
    let names = || KNOWN.iter().map(|(name, ..)| *name);
    let refused = REFUSED.iter().find(|(name, _)| *name == call.name);
    let help = refused.map(|(_, reason)| (*reason).to_owned());
    let help = help.or_else(|| did_you_mean(call.name, names()));
    let help = help.unwrap_or_else(|| format!("known: {}", names().collect::<Vec<_>>().join(", ")));
    let problem = Problem::error("interpolation::unknown_function", message).help(help);
    evaluator.fail(problem, call.span.clone(), call.holder)
}

/// Reports a wrong call, with the places that its arguments came from.
fn refuse(evaluator: &mut Evaluator, call: &Call, code: &'static str, message: String) -> Stuck {
    let mut problem = Problem::error(code, message);
    for argument in &call.arguments {
        let shown: String = shown(&argument.to_value()).chars().take(40).collect();
        let place = foreign_place(argument, call.holder);
        problem = problem.with(place, format!("{shown} comes from here"));
    }
    evaluator.fail(problem, call.span.clone(), call.holder)
}

/// Python's `*` and `+`, and Megatron launcher's divisions, which give whole numbers.
fn arithmetic(name: &str, left: &Value, right: &Value) -> Result<Value, String> {
    let done = match name {
        "multiply" => multiply(left, right),
        "sum" => add(left, right),
        _ => divide(left, right, name == "divide_ceil"),
    };
    done.unwrap_or_else(|| {
        Err(format!("`{name}` cannot work with {} and {}", shown(left), shown(right)))
    })
}

/// A value in a message.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        value => python_repr(value),
    }
}

/// None when the types do not fit; an error when the result does not.
type Computed = Option<Result<Value, String>>;

fn multiply(left: &Value, right: &Value) -> Computed {
    match (left, right) {
        (Value::String(_) | Value::Sequence(_), times) => repeat(left, integer(times)?),
        (times, Value::String(_) | Value::Sequence(_)) => repeat(right, integer(times)?),
        _ => match (integer(left), integer(right)) {
            (Some(left), Some(right)) => Some(fits(left.checked_mul(right))),
            _ => Some(Ok(Value::from(float(left)? * float(right)?))),
        },
    }
}

fn repeat(value: &Value, times: i128) -> Computed {
    let times = usize::try_from(times.max(0)).unwrap_or(usize::MAX);
    let length = match value {
        Value::String(text) => text.len(),
        Value::Sequence(items) => items.len(),
        _ => return None,
    };
    if length.checked_mul(times).is_none_or(|length| length > MAX_REPEATED) {
        return Some(Err(format!("`multiply` would repeat this {times} times, which is too long")));
    }
    Some(Ok(match value {
        Value::String(text) => Value::String(text.repeat(times)),
        Value::Sequence(items) => {
            Value::Sequence(std::iter::repeat_n(items, times).flatten().cloned().collect())
        }
        _ => return None,
    }))
}

fn add(left: &Value, right: &Value) -> Computed {
    match (left, right) {
        (Value::String(left), Value::String(right)) => {
            Some(Ok(Value::String(format!("{left}{right}"))))
        }
        (Value::Sequence(left), Value::Sequence(right)) => {
            Some(Ok(Value::Sequence(left.iter().chain(right).cloned().collect())))
        }
        _ => match (integer(left), integer(right)) {
            (Some(left), Some(right)) => Some(fits(left.checked_add(right))),
            _ => Some(Ok(Value::from(float(left)? + float(right)?))),
        },
    }
}

fn divide(left: &Value, right: &Value, up: bool) -> Computed {
    let (left, right) = (float(left)?, float(right)?);
    if right == 0.0 {
        return Some(Err("this divides by zero".to_owned()));
    }
    let quotient = left / right;
    let rounded = if up { quotient.ceil() } else { quotient.floor() };
    if rounded.abs() < 2_f64.powi(63) {
        return Some(Ok(Value::from(rounded as i64)));
    }
    Some(fits(None))
}

fn fits(value: Option<i128>) -> Result<Value, String> {
    let number = value.and_then(whole);
    number.map(Value::Number).ok_or_else(|| "the result needs more than 64 bits".to_owned())
}

/// Whole numbers, and truths as Python counts them.
fn integer(value: &Value) -> Option<i128> {
    match value {
        Value::Bool(truth) => Some(i128::from(*truth)),
        Value::Number(number) => {
            number.as_i64().map(i128::from).or(number.as_u64().map(i128::from))
        }
        _ => None,
    }
}

fn float(value: &Value) -> Option<f64> {
    match value {
        Value::Bool(truth) => Some(f64::from(u8::from(*truth))),
        Value::Number(number) => Number::as_f64(number),
        _ => None,
    }
}

/// `oc.env`: the value stays a text; a default that is no text becomes one, null stays null.
fn environment(
    evaluator: &mut Evaluator,
    call: &Call,
    name: &Node,
    default: Option<&Node>,
) -> Outcome<Node> {
    let origin = &call.holder.node.origin;
    let Some(name) = name.text() else {
        let message = "the name of an environment variable is a text".to_owned();
        return Err(refuse(evaluator, call, "interpolation::arguments", message));
    };
    if let Some(value) = evaluator.environment.get(name) {
        return Ok(Node::scalar(Value::String(value.clone()), origin.clone()));
    }
    match default.map(Node::to_value) {
        Some(Value::Null) => Ok(Node::scalar(Value::Null, origin.clone())),
        Some(value) => Ok(Node::scalar(Value::String(python_text(&value)), origin.clone())),
        None => {
            let message = format!("the environment variable `{name}` is not set");
            let help = format!("set it, or give a default: ${{oc.env:{name},default}}");
            let problem = Problem::error("interpolation::environment", message).help(help);
            Err(evaluator.fail(problem, call.span.clone(), call.holder))
        }
    }
}

/// `oc.select`: what is not there, or not set, gives the default, or null.
fn select(
    evaluator: &mut Evaluator,
    call: &Call,
    path: &Node,
    default: Option<&Node>,
) -> Outcome<Node> {
    let Some(path) = path.text() else {
        let message = "`oc.select` takes a key".to_owned();
        return Err(refuse(evaluator, call, "interpolation::arguments", message));
    };
    let found = match evaluator.find(path, call.holder) {
        Err(Stuck::Missing(..)) => None,
        found => found?,
    };
    let null = || Node::scalar(Value::Null, call.holder.node.origin.clone());
    Ok(found.unwrap_or_else(|| default.cloned().unwrap_or_else(null)))
}

/// `oc.decode`: reads a text by the grammar of arguments.
fn decode(evaluator: &mut Evaluator, call: &Call, text: &Node) -> Outcome<Node> {
    match &text.data {
        Data::Scalar(Value::Null) => Ok(text.clone()),
        Data::Scalar(Value::String(words)) => match grammar::element(words) {
            Ok(element) => evaluator.element(&element, call.holder),
            Err(error) => {
                let message = format!("`oc.decode` cannot read `{words}`: {}", error.message);
                Err(refuse(evaluator, call, "interpolation::arguments", message))
            }
        },
        _ => {
            let message = "`oc.decode` takes a text".to_owned();
            Err(refuse(evaluator, call, "interpolation::arguments", message))
        }
    }
}

fn create(evaluator: &mut Evaluator, call: &Call, value: &Node) -> Outcome<Node> {
    if let Data::Scalar(_) = value.data {
        let message = "`oc.create` takes a list or a mapping".to_owned();
        return Err(refuse(evaluator, call, "interpolation::arguments", message));
    }
    Ok(value.clone())
}

/// `oc.dict.keys` and `oc.dict.values` of a mapping, or of the key of one.
fn dictionary(evaluator: &mut Evaluator, call: &Call, argument: &Node) -> Outcome<Node> {
    let found = match argument.text().filter(|text| *text != MISSING) {
        Some(path) => evaluator.find(path, call.holder)?,
        None => Some(argument.clone()),
    };
    let Some(Data::Map(map)) = found.map(|node| node.data) else {
        let message = format!("`{}` takes a mapping or the key of one", call.name);
        return Err(refuse(evaluator, call, "interpolation::arguments", message));
    };
    let origin = &call.holder.node.origin;
    let keys = call.name == "oc.dict.keys";
    let pick = |(key, node): (&Value, &Node)| match (keys, key) {
        (true, Value::String(_)) => Node::scalar(Value::String(key_text(key)), origin.clone()),
        (true, key) => Node::scalar(key.clone(), origin.clone()),
        (false, _) => Node { key: None, ..node.clone() },
    };
    let items = map.iter().map(pick).collect();
    Ok(Node { data: Data::List(items), key: None, origin: origin.clone() })
}
