//! A tree as YAML that OmegaConf and NeMo read back to the same values, or as JSON.

use super::place::Origin;
use super::scalar;
use super::tree::{Data, Node, key_text};
use crate::base::python_text::python_float;
use serde_yaml::Value;
use std::fmt::Write;

/// Keys longer than this are written with `?`: parsers look only so far ahead for the colon.
const LONG_KEY: usize = 900;

/// A tree as YAML in block style.
pub(crate) fn yaml(node: &Node, origins: bool) -> String {
    let mut text = String::new();
    Emitter { origins }.node(&mut text, node, 0);
    text
}

struct Emitter {
    origins: bool,
}

impl Emitter {
    fn node(&self, out: &mut String, node: &Node, indent: usize) {
        match &node.data {
            Data::Map(map) if map.len() > 0 => {
                for (key, child) in map.iter() {
                    self.entry(out, key, child, indent);
                }
            }
            Data::List(items) if !items.is_empty() => {
                for item in items {
                    self.item(out, item, indent);
                }
            }
            _ => self.line(out, &leaf(node), node, indent),
        }
    }

    fn entry(&self, out: &mut String, key: &Value, child: &Node, indent: usize) {
        let pad = " ".repeat(indent);
        let key = word(key);
        let long = key.len() > LONG_KEY;
        let start = if long { format!("{pad}? {key}\n{pad}:") } else { format!("{pad}{key}:") };
        out.push_str(&start);
        if is_leaf(child) {
            out.push(' ');
            self.line(out, &leaf(child), child, 0);
            return;
        }
        out.push('\n');
        // As OmegaConf writes them: the items of a list stand right under its key.
        let list = matches!(child.data, Data::List(_)) && !long;
        self.node(out, child, if list { indent } else { indent + 2 });
    }

    fn item(&self, out: &mut String, item: &Node, indent: usize) {
        let mut below = String::new();
        self.node(&mut below, item, indent + 2);
        let rest = below.get(indent + 2..).unwrap_or_default();
        let _ = write!(out, "{}- {rest}", " ".repeat(indent));
    }

    fn line(&self, out: &mut String, text: &str, node: &Node, indent: usize) {
        let _ = write!(out, "{}{text}", " ".repeat(indent));
        if self.origins {
            let _ = write!(out, "  # {}", origin(&node.origin));
        }
        out.push('\n');
    }
}

/// `file:line`, `override 2`, or `default`.
pub(crate) fn origin(origin: &Origin) -> String {
    let text = match origin {
        Origin::File(place) => format!("{}:{}", place.file.name, place.line_and_column().0),
        Origin::Override(number, _) => format!("override {number}"),
        Origin::Default => "default".to_owned(),
    };
    text.replace(char::is_control, " ")
}

fn is_leaf(node: &Node) -> bool {
    match &node.data {
        Data::Scalar(_) => true,
        Data::List(items) => items.is_empty(),
        Data::Map(map) => map.len() == 0,
    }
}

fn leaf(node: &Node) -> String {
    match &node.data {
        Data::Scalar(value) => word(value),
        Data::List(_) => "[]".to_owned(),
        Data::Map(_) => "{}".to_owned(),
    }
}

fn word(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(truth) => truth.to_string(),
        Value::Number(number) if number.is_f64() => float(number.as_f64().unwrap_or(f64::NAN)),
        Value::Number(number) => number.to_string(),
        Value::String(text) => string(text),
        Value::Sequence(_) | Value::Mapping(_) | Value::Tagged(_) => string(&key_text(value)),
    }
}

fn float(value: f64) -> String {
    let text = python_float(value);
    match text.as_str() {
        "inf" => ".inf".to_owned(),
        "-inf" => "-.inf".to_owned(),
        "nan" => ".nan".to_owned(),
        _ => text,
    }
}

fn string(text: &str) -> String {
    if is_plain(text) {
        return text.to_owned();
    }
    if text.chars().all(is_printable) {
        return format!("'{}'", text.replace('\'', "''"));
    }
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '\r' => quoted.push_str("\\r"),
            _ if is_printable(character) => quoted.push(character),
            _ => {
                let code = u32::from(character);
                let _ = match code {
                    ..0x100 => write!(quoted, "\\x{code:02X}"),
                    0x100..0x1_0000 => write!(quoted, "\\u{code:04X}"),
                    _ => write!(quoted, "\\U{code:08X}"),
                };
            }
        }
    }
    quoted.push('"');
    quoted
}

/// Characters that every YAML reader takes as they are, on one line.
fn is_printable(character: char) -> bool {
    match character {
        ' '..='~' | '\u{1_0000}'.. => true,
        '\u{a1}'..='\u{d7ff}' => character != '\u{2028}' && character != '\u{2029}',
        '\u{e000}'..='\u{fffd}' => character != '\u{feff}',
        _ => false,
    }
}

/// Whether a text without quotes is read as the same text by any YAML reader, 1.1 or 1.2.
fn is_plain(text: &str) -> bool {
    if text == "???" {
        return true;
    }
    let start = |c: char| c.is_ascii_alphabetic() || c == '_' || c == '/';
    let safe = |c: char| c.is_ascii_alphanumeric() || "_-./@%+=".contains(c);
    let interpolation = text.starts_with("${")
        && text.ends_with('}')
        && text.chars().all(|c| safe(c) || "${}:,[]".contains(c));
    let words = text.starts_with(start)
        && !text.ends_with(' ')
        && text.chars().all(|c| safe(c) || c == ' ');
    let read = scalar::plain(text).is_ok_and(|value| value.as_str() == Some(text));
    // Readers of other schemas know these as truths and numbers.
    let lower = text.to_ascii_lowercase();
    let meant = ["y", "n", "inf", "nan", "infinity", "none"].contains(&lower.as_str());
    (interpolation || words) && read && !meant
}

/// A tree as JSON, in order; with origins as one flat object by path. JSON has no infinities:
/// they are written as Python writes them, in quotes.
pub(crate) fn json(node: &Node, origins: bool) -> String {
    let mut text = String::new();
    if origins {
        let mut leaves = Vec::new();
        collect(node, "", &mut leaves);
        text.push_str("{\n");
        for (index, (path, leaf)) in leaves.iter().enumerate() {
            let mut value = String::new();
            json_node(&mut value, leaf, 0);
            let from = quoted(&origin(&leaf.origin));
            let comma = if index + 1 < leaves.len() { "," } else { "" };
            let path = quoted(path);
            let _ = writeln!(text, "  {path}: {{\"value\": {value}, \"origin\": {from}}}{comma}");
        }
        text.push('}');
    } else {
        json_node(&mut text, node, 0);
    }
    text.push('\n');
    text
}

fn collect<'n>(node: &'n Node, path: &str, leaves: &mut Vec<(String, &'n Node)>) {
    if is_leaf(node) {
        leaves.push((path.to_owned(), node));
    }
    for (step, child) in node.children() {
        let step = super::path::Path(vec![step]);
        let below = if path.is_empty() { step.to_string() } else { format!("{path}.{step}") };
        collect(child, &below, leaves);
    }
}

fn json_node(out: &mut String, node: &Node, indent: usize) {
    let pad = " ".repeat(indent + 2);
    let (open, close, lines): (_, _, Vec<(String, &Node)>) = match &node.data {
        Data::Scalar(value) => return out.push_str(&json_scalar(value)),
        Data::List(items) => ("[", "]", items.iter().map(|item| (String::new(), item)).collect()),
        Data::Map(map) => {
            let key = |(key, item)| (format!("{}: ", quoted(&key_text(key))), item);
            ("{", "}", map.iter().map(key).collect())
        }
    };
    out.push_str(open);
    for (index, (key, item)) in lines.iter().enumerate() {
        out.push_str(if index == 0 { "\n" } else { ",\n" });
        let _ = write!(out, "{pad}{key}");
        json_node(out, item, indent + 2);
    }
    if !lines.is_empty() {
        let _ = write!(out, "\n{}", " ".repeat(indent));
    }
    out.push_str(close);
}

fn json_scalar(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(truth) => truth.to_string(),
        Value::Number(number) => match number.as_f64().filter(|_| number.is_f64()) {
            Some(float) if !float.is_finite() => quoted(&python_float(float)),
            Some(float) => python_float(float),
            None => number.to_string(),
        },
        other => quoted(&key_text(other)),
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::String(text.to_owned()).to_string()
}
