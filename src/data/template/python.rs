//! Values as Python prints them, and its JSON: what templates written for Python's Jinja expect.

use crate::base::python_text::{python_float, python_quoted};
use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Error, ErrorKind, Output, State, Value};
use minijinja_contrib::pycompat::unknown_method_callback;

/// Writes the value of `{{ … }}` as Python's `str` does.
pub(super) fn print(out: &mut Output, _: &mut State, value: &Value) -> Result<(), Error> {
    let written = match value.as_str() {
        Some(text) => out.write_str(text),
        None => out.write_str(&text(value)),
    };
    written.map_err(Error::from)
}

/// Methods of Python's texts, lists and dictionaries.
pub(super) fn method(
    state: &mut State,
    value: &Value,
    name: &str,
    arguments: &[Value],
) -> Result<Value, Error> {
    match value.as_str().filter(|_| name == "title" && arguments.is_empty()) {
        Some(text) => Ok(Value::from(title(text))),
        None => unknown_method_callback(state, value, name, arguments),
    }
}

/// Python's `title`: a letter after anything that is none is large, the others are small.
fn title(text: &str) -> String {
    let mut titled = String::with_capacity(text.len());
    let mut inside = false;
    for character in text.chars() {
        if inside {
            titled.extend(character.to_lowercase());
        } else {
            titled.extend(character.to_uppercase());
        }
        inside = character.is_alphabetic();
    }
    titled
}

/// A value as Python's `str` writes it.
fn text(value: &Value) -> String {
    match value.kind() {
        ValueKind::Undefined => String::new(),
        ValueKind::String => value.as_str().unwrap_or_default().to_owned(),
        _ => repr(value),
    }
}

/// A value as Python's `repr` writes it.
fn repr(value: &Value) -> String {
    let items = || value.try_iter().into_iter().flatten();
    match value.kind() {
        ValueKind::None => "None".to_owned(),
        ValueKind::Bool => if value.is_true() { "True" } else { "False" }.to_owned(),
        ValueKind::Number if !value.is_integer() => float(value),
        ValueKind::String => python_quoted(value.as_str().unwrap_or_default()),
        ValueKind::Seq | ValueKind::Iterable => {
            format!("[{}]", items().map(|item| repr(&item)).collect::<Vec<_>>().join(", "))
        }
        ValueKind::Map => {
            let pair = |key: Value| {
                let item = value.get_item(&key).unwrap_or_default();
                format!("{}: {}", repr(&key), repr(&item))
            };
            format!("{{{}}}", items().map(pair).collect::<Vec<_>>().join(", "))
        }
        _ => value.to_string(),
    }
}

fn float(value: &Value) -> String {
    f64::try_from(value.clone()).map_or_else(|_| value.to_string(), python_float)
}

/// `tojson` as Transformers has it: `json.dumps` without escapes for what is not ASCII, and without
/// those for HTML.
#[expect(clippy::needless_pass_by_value, reason = "minijinja hands arguments over")]
pub(super) fn to_json(value: &Value, options: Kwargs) -> Result<Value, Error> {
    let indent = options.get::<Option<usize>>("indent")?;
    let sorted = options.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    let unicode = options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false);
    options.assert_all_used()?;
    if unicode {
        let message = "`tojson` with ensure_ascii=true is not built";
        return Err(Error::new(ErrorKind::InvalidOperation, message));
    }
    let mut out = String::new();
    Json { indent, sorted, depth: 0 }.write(&mut out, value)?;
    Ok(Value::from(out))
}

#[derive(Clone, Copy)]
struct Json {
    indent: Option<usize>,
    sorted: bool,
    /// Brackets around this value.
    depth: usize,
}

impl Json {
    fn write(self, out: &mut String, value: &Value) -> Result<(), Error> {
        match value.kind() {
            ValueKind::None => out.push_str("null"),
            ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number if value.is_integer() => out.push_str(&value.to_string()),
            ValueKind::Number => out.push_str(&json_float(&float(value))),
            ValueKind::String => out.push_str(&json_text(value.as_str().unwrap_or_default())),
            ValueKind::Seq | ValueKind::Iterable => {
                let items: Vec<Value> = value.try_iter()?.collect();
                self.group(out, ('[', ']'), &items, Json::write)?;
            }
            ValueKind::Map => {
                let mut keys: Vec<Value> = value.try_iter()?.collect();
                if self.sorted {
                    keys.sort();
                }
                self.group(out, ('{', '}'), &keys, |inner, out, key| {
                    out.push_str(&json_text(&text(key)));
                    out.push_str(": ");
                    inner.write(out, &value.get_item(key)?)
                })?;
            }
            other => {
                let message = format!("a value of kind {other} has no JSON");
                return Err(Error::new(ErrorKind::InvalidOperation, message));
            }
        }
        Ok(())
    }

    /// Items between brackets, each on a line of its own when there is an indent.
    fn group(
        self,
        out: &mut String,
        (open, close): (char, char),
        items: &[Value],
        each: impl Fn(Json, &mut String, &Value) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let line = |out: &mut String, depth: usize| {
            if let Some(indent) = self.indent.filter(|_| !items.is_empty()) {
                out.push('\n');
                out.push_str(&" ".repeat(indent * depth));
            }
        };
        let inner = Json { depth: self.depth + 1, ..self };
        let between = if self.indent.is_some() { "," } else { ", " };
        out.push(open);
        for (at, item) in items.iter().enumerate() {
            if at > 0 {
                out.push_str(between);
            }
            line(out, inner.depth);
            each(inner, out, item)?;
        }
        line(out, self.depth);
        out.push(close);
        Ok(())
    }
}

/// Python's words for numbers that JSON does not have.
fn json_float(text: &str) -> String {
    match text {
        "nan" => "NaN".to_owned(),
        "inf" => "Infinity".to_owned(),
        "-inf" => "-Infinity".to_owned(),
        _ => text.to_owned(),
    }
}

fn json_text(text: &str) -> String {
    serde_json::Value::String(text.to_owned()).to_string()
}
