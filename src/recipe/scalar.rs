//! Scalars: what a plain YAML word means to OmegaConf, and how Python writes a value inside a text.

use crate::base::python_text::{python_float, python_quoted};
use serde_yaml::{Number, Value};

/// Why a plain scalar has no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// YAML 1.1 gives `=` a type of its own that no reader builds.
    #[error("a bare `=` has no value in YAML 1.1")]
    Equals,
    /// The same for `<<` as a value.
    #[error("a bare `<<` merges mappings and is only a key")]
    Merge,
    /// Python's integers have no end, ours do.
    #[error("this integer needs more than 64 bits")]
    Range,
}

/// The value of a plain (unquoted) scalar: YAML 1.1 as `PyYAML` reads it, with OmegaConf's floats
/// (an exponent needs neither a dot nor a sign) and without timestamps.
pub(crate) fn plain(text: &str) -> Result<Value, Refused> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Ok(Value::Null),
        "=" => return Err(Refused::Equals),
        "<<" => return Err(Refused::Merge),
        _ => {}
    }
    if let Some(truth) = boolean(text) {
        return Ok(Value::Bool(truth));
    }
    if let Some(number) = integer(text) {
        return number.map(Value::Number);
    }
    Ok(float(text).map_or_else(|| Value::String(text.to_owned()), Value::from))
}

/// YAML 1.1's booleans, without the single letters that `PyYAML` leaves alone.
fn boolean(text: &str) -> Option<bool> {
    let lower = text.to_ascii_lowercase();
    let mut capital = lower.clone();
    if let Some(first) = capital.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    if text != lower && text != capital && text != text.to_ascii_uppercase() {
        return None;
    }
    match lower.as_str() {
        "yes" | "true" | "on" => Some(true),
        "no" | "false" | "off" => Some(false),
        _ => None,
    }
}

/// Decimal, `0b`, octal with a leading zero, `0x`, and base 60 (`12:30:45`).
pub(crate) fn integer(text: &str) -> Option<Result<Number, Refused>> {
    let (negative, body) = sign(text);
    let magnitude = if let Some(digits) = body.strip_prefix("0b") {
        radix(digits, 2)
    } else if let Some(digits) = body.strip_prefix("0x") {
        radix(digits, 16)
    } else if let Some(digits) = body.strip_prefix('0') {
        if digits.is_empty() { Some(0) } else { radix(digits, 8) }
    } else if body.starts_with(|first: char| first.is_ascii_digit()) {
        if body.contains(':') { base_60(body) } else { radix(body, 10) }
    } else {
        None
    }?;
    Some(number(negative, magnitude))
}

/// The digits in a base; none for anything else. What needs more than 64 bits only gets larger.
fn radix(digits: &str, base: u32) -> Option<u128> {
    let mut value = 0_u128;
    let mut any = false;
    for digit in digits.chars().filter(|digit| *digit != '_') {
        let digit = digit.to_digit(base)?;
        any = true;
        value = value.saturating_mul(base.into()).saturating_add(digit.into());
    }
    any.then_some(value)
}

fn base_60(body: &str) -> Option<u128> {
    let mut parts = body.split(':');
    let mut value = radix(parts.next()?, 10)?;
    for part in parts {
        value = value.saturating_mul(60).saturating_add(sixtieth(part)?.into());
    }
    Some(value)
}

/// One part after a colon: 0 to 59 in one or two digits.
fn sixtieth(part: &str) -> Option<u32> {
    let digits = part.bytes().all(|byte| byte.is_ascii_digit());
    let part = part.parse().ok().filter(|_| digits && part.len() <= 2)?;
    (part < 60).then_some(part)
}

fn number(negative: bool, magnitude: u128) -> Result<Number, Refused> {
    let value = i128::try_from(magnitude).map_err(|_| Refused::Range)?;
    whole(if negative { -value } else { value }).ok_or(Refused::Range)
}

/// An integer as a YAML number; none when it needs more than 64 bits.
pub(crate) fn whole(value: i128) -> Option<Number> {
    match (i64::try_from(value), u64::try_from(value)) {
        (Ok(signed), _) => Some(Number::from(signed)),
        (_, Ok(unsigned)) => Some(Number::from(unsigned)),
        _ => None,
    }
}

fn float(text: &str) -> Option<f64> {
    let (negative, body) = sign(text);
    let signed = |value: f64| if negative { -value } else { value };
    match body {
        ".inf" | ".Inf" | ".INF" => return Some(signed(f64::INFINITY)),
        ".nan" | ".NaN" | ".NAN" if body.len() == text.len() => return Some(f64::NAN),
        _ => {}
    }
    if body.contains(':') {
        return float_base_60(body).map(signed);
    }
    let signed_exponent_only = body.starts_with('.');
    if signed_exponent_only && body.len() != text.len() {
        return None; // `-.5` is a text in YAML 1.1
    }
    let (mantissa, exponent) = match body.find(['e', 'E']) {
        Some(at) => (&body[..at], Some(&body[at + 1..])),
        None => (body, None),
    };
    if exponent.is_none() && !mantissa.contains('.') {
        return None;
    }
    if !exponent.is_none_or(|exponent| is_exponent(exponent, signed_exponent_only)) {
        return None;
    }
    let (before, after) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if !is_digits(before, signed_exponent_only) || !is_digits(after, !signed_exponent_only) {
        return None;
    }
    body.replace('_', "").parse().ok().map(signed)
}

fn float_base_60(body: &str) -> Option<f64> {
    let (whole, fraction) = body.split_once('.')?;
    let whole = base_60(whole)?;
    let digits: String = fraction.chars().filter(|digit| *digit != '_').collect();
    let fraction: f64 =
        if is_digits(fraction, true) { format!("0.{digits}0").parse().ok()? } else { return None };
    Some(whole as f64 + fraction)
}

fn is_exponent(text: &str, sign_needed: bool) -> bool {
    let digits = text.strip_prefix(['-', '+']);
    let digits = if sign_needed { digits } else { Some(digits.unwrap_or(text)) };
    digits.is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
}

/// Digits and underscores; the first one a digit, or nothing at all where that is allowed.
fn is_digits(text: &str, may_be_empty: bool) -> bool {
    let all = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'_');
    all && match text.bytes().next() {
        None => may_be_empty,
        Some(first) => first != b'_',
    }
}

fn sign(text: &str) -> (bool, &str) {
    match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    }
}

/// A scalar as Python's `str` writes it.
pub(crate) fn python_text(value: &Value) -> String {
    match value {
        Value::Null => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::Number(number) if number.is_f64() => {
            python_float(number.as_f64().unwrap_or(f64::NAN))
        }
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        Value::Sequence(_) | Value::Mapping(_) | Value::Tagged(_) => python_repr(value),
    }
}

/// A value as Python's `repr` writes it: what `str` of a list or a dictionary shows.
pub(crate) fn python_repr(value: &Value) -> String {
    match value {
        Value::String(text) => python_quoted(text),
        Value::Sequence(items) => {
            let items: Vec<_> = items.iter().map(python_repr).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Mapping(map) => {
            let pair = |(key, value)| format!("{}: {}", python_repr(key), python_repr(value));
            let pairs: Vec<_> = map.iter().map(pair).collect();
            format!("{{{}}}", pairs.join(", "))
        }
        Value::Tagged(tagged) => python_repr(&tagged.value),
        scalar => python_text(scalar),
    }
}
