//! Words of Hydra's and OmegaConf's command grammars: which of them are null, truths or numbers.

use super::scalar::{Refused, whole};
use serde_yaml::Value;

/// Characters besides letters, digits and underscores that need no quotes.
pub(crate) const UNQUOTED: &str = "/-\\+.$%*@?|";

/// Characters that a backslash takes the meaning from.
pub(crate) const ESCAPABLE: &str = "\\()[]{}:=, \t";

/// The value of an unquoted word; a text when it is no literal. Unlike in YAML `yes`, `None`,
/// `007` and `0x1F` are texts.
pub(crate) fn value(word: &str) -> Result<Value, Refused> {
    match word.to_ascii_lowercase().as_str() {
        "null" => return Ok(Value::Null),
        "true" => return Ok(Value::Bool(true)),
        "false" => return Ok(Value::Bool(false)),
        _ => {}
    }
    let (negative, body) = match word.strip_prefix('-') {
        Some(body) => (true, body),
        None => (false, word.strip_prefix('+').unwrap_or(word)),
    };
    if is_unsigned(body) {
        let digits = body.replace('_', "");
        let magnitude: i128 = digits.parse().map_err(|_| Refused::Range)?;
        let number = whole(if negative { -magnitude } else { magnitude });
        return number.map(Value::Number).ok_or(Refused::Range);
    }
    let float = float(body).map(|value| Value::from(if negative { -value } else { value }));
    Ok(float.unwrap_or_else(|| Value::String(word.to_owned())))
}

fn float(body: &str) -> Option<f64> {
    match body.to_ascii_lowercase().as_str() {
        "inf" => return Some(f64::INFINITY),
        "nan" => return Some(f64::NAN),
        _ => {}
    }
    let (mantissa, exponent) = match body.find(['e', 'E']) {
        Some(at) => (&body[..at], Some(&body[at + 1..])),
        None => (body, None),
    };
    let exponent_fits = exponent
        .is_none_or(|exponent| is_digits(exponent.strip_prefix(['-', '+']).unwrap_or(exponent)));
    let mantissa_fits = match mantissa.split_once('.') {
        None => exponent.is_some() && is_unsigned(mantissa),
        Some((before, "")) => is_unsigned(before),
        Some((before, after)) => (before.is_empty() || is_unsigned(before)) && is_digits(after),
    };
    if !exponent_fits || !mantissa_fits {
        return None;
    }
    body.replace('_', "").parse().ok()
}

/// A number without leading zeros, single underscores between digits allowed.
fn is_unsigned(text: &str) -> bool {
    text == "0" || !text.starts_with('0') && is_digits(text)
}

/// Digits with single underscores between them.
fn is_digits(text: &str) -> bool {
    let all = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'_');
    all && !text.is_empty()
        && !text.starts_with('_')
        && !text.ends_with('_')
        && !text.contains("__")
}
