//! JSON with one spelling per value, for hashing: keys sorted, no white space.

use serde_json::Value;
use std::fmt::Write as _;

/// The canonical text of `value`.
///
/// Keys are sorted by their bytes whatever the map's own order is, since `serde_json`'s order
/// depends on a cargo feature that any dependency can turn on.
pub fn to_string(value: &Value) -> String {
    let mut text = String::new();
    write_value(&mut text, value);
    text
}

fn write_value(text: &mut String, value: &Value) {
    match value {
        Value::Array(items) => {
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                write_value(text, item);
            }
            text.push(']');
        }
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(key, _)| key.as_bytes());
            text.push('{');
            for (index, (key, item)) in entries.into_iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                write_scalar(text, &Value::String(key.clone()));
                text.push(':');
                write_value(text, item);
            }
            text.push('}');
        }
        scalar => write_scalar(text, scalar),
    }
}

fn write_scalar(text: &mut String, scalar: &Value) {
    // Writing to a String cannot fail.
    let _ = write!(text, "{scalar}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_sorted_at_every_depth() {
        let value = serde_json::json!({"b": {"z": 1, "a": [true, null]}, "a": 1e-4});
        assert_eq!(to_string(&value), r#"{"a":0.0001,"b":{"a":[true,null],"z":1}}"#);
    }
}
