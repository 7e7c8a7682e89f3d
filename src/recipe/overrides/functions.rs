//! The functions of override values: casts, order, and what a sweep tries.

use super::element::{Element, Sweep, SweepKind};
use crate::base::suggest::did_you_mean;
use crate::recipe::scalar::python_text;
use serde_yaml::Value;
use std::cmp::Ordering;

const KNOWN: &[&str] = &[
    "bool", "choice", "float", "glob", "int", "interval", "range", "shuffle", "sort", "str", "tag",
];

type Made = Result<Element, String>;

/// Evaluates a call; the error is a message.
pub(crate) fn call(name: &str, arguments: Vec<Element>, named: Vec<(String, Element)>) -> Made {
    let allowed: &[&str] = match name {
        "range" => &["start", "stop", "step"],
        "interval" => &["start", "end"],
        "glob" => &["include", "exclude"],
        "sort" => &["reverse"],
        _ => &[],
    };
    if let Some((unknown, _)) = named.iter().find(|(name, _)| !allowed.contains(&name.as_str())) {
        return Err(format!("`{name}` has no argument called `{unknown}`"));
    }
    match name {
        "int" | "float" | "str" | "bool" => cast_all(name, arguments),
        "choice" if arguments.is_empty() => Err("`choice` needs at least one value".to_owned()),
        "choice" => Ok(sweep(SweepKind::Choice { items: arguments, simple: false })),
        "range" => range(arguments, named),
        "interval" => interval(arguments, named),
        "glob" => glob(arguments, named),
        "sort" => sort(arguments, &named),
        "shuffle" => shuffle(arguments),
        "tag" => tag(arguments),
        _ => {
            let known = || format!("known: {}", KNOWN.join(", "));
            let hint = did_you_mean(name, KNOWN.iter().copied()).unwrap_or_else(known);
            Err(format!("there is no function `{name}`; {hint}"))
        }
    }
}

fn sweep(kind: SweepKind) -> Element {
    Element::Sweep(Sweep { kind, tags: Vec::new(), shuffle: false })
}

fn cast_all(to: &str, mut arguments: Vec<Element>) -> Made {
    match arguments.len() {
        0 => Err(format!("`{to}` needs a value")),
        1 => cast(to, arguments.remove(0)),
        _ => {
            let items: Result<Vec<_>, _> =
                arguments.into_iter().map(|item| cast(to, item)).collect();
            Ok(sweep(SweepKind::Choice { items: items?, simple: true }))
        }
    }
}

fn cast(to: &str, element: Element) -> Made {
    let all = |items: Vec<Element>| items.into_iter().map(|item| cast(to, item)).collect();
    match element {
        Element::Word(value) => cast_value(to, &value).map(Element::Word),
        Element::Quoted { text, .. } => cast_value(to, &Value::String(text)).map(Element::Word),
        Element::List(items) => Result::<Vec<_>, _>::map(all(items), Element::List),
        Element::Map(pairs) => {
            let pairs = pairs.into_iter().map(|(key, item)| Ok((key, cast(to, item)?)));
            pairs.collect::<Result<Vec<_>, String>>().map(Element::Map)
        }
        Element::Sweep(Sweep { kind, tags, shuffle }) => {
            let kind = cast_sweep(to, kind)?;
            Ok(Element::Sweep(Sweep { kind, tags, shuffle }))
        }
    }
}

fn cast_sweep(to: &str, kind: SweepKind) -> Result<SweepKind, String> {
    let number = to == "int" || to == "float";
    match kind {
        SweepKind::Choice { items, simple } => {
            let items: Result<Vec<_>, _> = items.into_iter().map(|item| cast(to, item)).collect();
            Ok(SweepKind::Choice { items: items?, simple })
        }
        SweepKind::Range { start, stop, step } if number => Ok(SweepKind::Range {
            start: cast_value(to, &start)?,
            stop: cast_value(to, &stop)?,
            step: cast_value(to, &step)?,
        }),
        SweepKind::Interval { start, end } if number => {
            Ok(SweepKind::Interval { start: cast_value(to, &start)?, end: cast_value(to, &end)? })
        }
        SweepKind::Range { .. } => Err("a range can only be cast to int or float".to_owned()),
        SweepKind::Interval { .. } => {
            Err("an interval can only be cast to int or float".to_owned())
        }
        SweepKind::Glob { .. } => Err("a glob cannot be cast".to_owned()),
    }
}

fn cast_value(to: &str, value: &Value) -> Result<Value, String> {
    let cast = match to {
        "int" => to_int(value),
        "float" => to_float(value),
        "bool" => to_bool(value),
        _ => Some(Value::String(match value {
            Value::Null => "null".to_owned(),
            Value::Bool(truth) => truth.to_string(),
            value => python_text(value),
        })),
    };
    cast.ok_or_else(|| format!("`{}` cannot be cast to {to}", python_text(value)))
}

fn to_int(value: &Value) -> Option<Value> {
    match value {
        Value::Bool(truth) => Some(Value::from(i64::from(*truth))),
        Value::Number(number) if number.is_f64() => {
            let number = number.as_f64().filter(|number| number.abs() < 2_f64.powi(63))?;
            Some(Value::from(number.trunc() as i64))
        }
        Value::Number(_) => Some(value.clone()),
        Value::String(text) => text.trim().replace('_', "").parse::<i64>().ok().map(Value::from),
        _ => None,
    }
}

fn to_float(value: &Value) -> Option<Value> {
    match value {
        Value::Bool(truth) => Some(Value::from(f64::from(u8::from(*truth)))),
        Value::Number(number) => number.as_f64().map(Value::from),
        Value::String(text) => text.trim().replace('_', "").parse::<f64>().ok().map(Value::from),
        _ => None,
    }
}

fn to_bool(value: &Value) -> Option<Value> {
    match value {
        Value::Bool(_) => Some(value.clone()),
        Value::Number(number) => number.as_f64().map(|number| Value::Bool(number != 0.0)),
        Value::String(text) => match text.to_ascii_lowercase().as_str() {
            "true" => Some(Value::Bool(true)),
            "false" => Some(Value::Bool(false)),
            _ => None,
        },
        _ => None,
    }
}

/// The arguments of a function by position and by name, in the order of the names.
fn place_arguments(
    names: [&str; 3],
    positional: Vec<Element>,
    named: Vec<(String, Element)>,
) -> Result<[Option<Element>; 3], String> {
    let mut placed = [None, None, None];
    if positional.len() > names.iter().filter(|name| !name.is_empty()).count() {
        return Err("too many arguments".to_owned());
    }
    for (slot, element) in placed.iter_mut().zip(positional) {
        *slot = Some(element);
    }
    for (name, element) in named {
        let slot = names.iter().position(|known| *known == name);
        match slot.and_then(|at| placed.get_mut(at)) {
            Some(slot @ None) => *slot = Some(element),
            _ => return Err(format!("`{name}` is given twice")),
        }
    }
    Ok(placed)
}

fn number(element: Element) -> Result<Value, String> {
    match element {
        Element::Word(value @ Value::Number(_)) => Ok(value),
        _ => Err("this takes numbers".to_owned()),
    }
}

fn range(positional: Vec<Element>, named: Vec<(String, Element)>) -> Made {
    let [start, stop, step] = place_arguments(["start", "stop", "step"], positional, named)?;
    let (start, stop) = match (start, stop) {
        (None, None) => return Err("`range` needs a number".to_owned()),
        (Some(stop), None) | (None, Some(stop)) => (Value::from(0), number(stop)?),
        (Some(start), Some(stop)) => (number(start)?, number(stop)?),
    };
    let step = step.map_or(Ok(Value::from(1)), number)?;
    if step.as_f64() == Some(0.0) {
        return Err("the step of a range cannot be zero".to_owned());
    }
    Ok(sweep(SweepKind::Range { start, stop, step }))
}

fn interval(positional: Vec<Element>, named: Vec<(String, Element)>) -> Made {
    let [start, end, _] = place_arguments(["start", "end", ""], positional, named)?;
    let (Some(start), Some(end)) = (start, end) else {
        return Err("`interval` needs two numbers".to_owned());
    };
    let float = |element| cast_value("float", &number(element)?);
    Ok(sweep(SweepKind::Interval { start: float(start)?, end: float(end)? }))
}

fn glob(positional: Vec<Element>, named: Vec<(String, Element)>) -> Made {
    let [include, exclude, _] = place_arguments(["include", "exclude", ""], positional, named)?;
    let patterns = |element: Option<Element>| match element {
        None => Ok(Vec::new()),
        Some(Element::List(items)) => items.into_iter().map(pattern).collect(),
        Some(one) => pattern(one).map(|pattern| vec![pattern]),
    };
    let (include, exclude): (Vec<_>, _) = (patterns(include)?, patterns(exclude)?);
    if include.is_empty() {
        return Err("`glob` needs a pattern".to_owned());
    }
    Ok(sweep(SweepKind::Glob { include, exclude }))
}

fn pattern(element: Element) -> Result<String, String> {
    match element {
        Element::Word(Value::String(text)) | Element::Quoted { text, .. } => Ok(text),
        _ => Err("a pattern of `glob` is a text".to_owned()),
    }
}

fn sort(mut arguments: Vec<Element>, named: &[(String, Element)]) -> Made {
    let reverse = match named.first() {
        None => false,
        Some((_, Element::Word(Value::Bool(reverse)))) => *reverse,
        Some(_) => return Err("`reverse` is true or false".to_owned()),
    };
    if arguments.len() > 1 {
        let items = sorted(arguments, reverse)?;
        return Ok(sweep(SweepKind::Choice { items, simple: true }));
    }
    match arguments.pop() {
        Some(Element::List(items)) => sorted(items, reverse).map(Element::List),
        Some(Element::Sweep(Sweep {
            kind: SweepKind::Choice { items, simple },
            tags,
            shuffle,
        })) => {
            let kind = SweepKind::Choice { items: sorted(items, reverse)?, simple };
            Ok(Element::Sweep(Sweep { kind, tags, shuffle }))
        }
        _ => Err("`sort` takes a list, a choice, or several values".to_owned()),
    }
}

fn sorted(mut items: Vec<Element>, reverse: bool) -> Result<Vec<Element>, String> {
    let number = |element: &Element| match element {
        Element::Word(value) => value.as_f64(),
        _ => None,
    };
    let text = |element: &Element| pattern(element.clone()).ok();
    let numbers = items.iter().all(|item| number(item).is_some());
    if !numbers && !items.iter().all(|item| text(item).is_some()) {
        return Err("`sort` takes numbers or texts, not both".to_owned());
    }
    items.sort_by(|left, right| {
        let order = if numbers {
            let (left, right) = (number(left).unwrap_or(0.0), number(right).unwrap_or(0.0));
            left.partial_cmp(&right).unwrap_or(Ordering::Equal)
        } else {
            text(left).cmp(&text(right))
        };
        if reverse { order.reverse() } else { order }
    });
    Ok(items)
}

fn shuffle(mut arguments: Vec<Element>) -> Made {
    if arguments.len() > 1 {
        let kind = SweepKind::Choice { items: arguments, simple: true };
        return Ok(Element::Sweep(Sweep { kind, tags: Vec::new(), shuffle: true }));
    }
    match arguments.pop() {
        Some(Element::Sweep(sweep)) if !matches!(sweep.kind, SweepKind::Interval { .. }) => {
            Ok(Element::Sweep(Sweep { shuffle: true, ..sweep }))
        }
        Some(Element::List(_)) => {
            Err("a shuffled list would differ from run to run; write the order".to_owned())
        }
        _ => Err("`shuffle` takes a choice, a range, or several values".to_owned()),
    }
}

fn tag(mut arguments: Vec<Element>) -> Made {
    let Some(Element::Sweep(sweep)) = arguments.pop() else {
        return Err("the last argument of `tag` is a sweep, such as interval(0,1)".to_owned());
    };
    let tags: Result<Vec<_>, _> = arguments.into_iter().map(pattern).collect();
    let tags = tags.map_err(|_| "tags are words".to_owned())?;
    Ok(Element::Sweep(Sweep { tags, ..sweep }))
}
