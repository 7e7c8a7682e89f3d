//! YAML's tags: those of the core schema are kept, others refused.

use crate::recipe::problem::Problem;
use crate::recipe::scalar;
use granit_parser::Tag;
use serde_yaml::Value;

/// A scalar with a tag of the core schema; others are refused.
pub(super) fn tagged(text: &str, tag: &Tag) -> Result<Value, Box<Problem>> {
    let wrong = || {
        let message = format!("`{text}` is not what its tag `{}` says", tag.original());
        Box::new(Problem::error("yaml::tag", message).help("leave the tag out"))
    };
    let value = scalar::plain(text);
    match tag.core_suffix() {
        Some("str") => Ok(Value::String(text.to_owned())),
        Some("null") => value.ok().filter(Value::is_null).ok_or_else(wrong),
        Some("bool") => value.ok().filter(Value::is_bool).ok_or_else(wrong),
        Some("int") => {
            value.ok().filter(|value| value.is_i64() || value.is_u64()).ok_or_else(wrong)
        }
        Some("float") => {
            let number = value.ok().and_then(|value| value.as_f64());
            number.map(Value::from).ok_or_else(wrong)
        }
        _ if tag.original() == "!" => Ok(Value::String(text.to_owned())),
        _ => Err(Box::new(unknown_tag(tag))),
    }
}

pub(super) fn unknown_tag(tag: &Tag) -> Problem {
    Problem::error("yaml::tag", format!("the tag `{}` means nothing here", tag.original()))
        .help("tags known: !!str, !!int, !!float, !!bool, !!null, !!seq, !!map")
}
