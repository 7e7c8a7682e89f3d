//! Settings that may be written in several forms. serde's untagged enums lose the place of an error,
//! so each form is told apart by hand.

use super::choice::PrecisionName;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error};
use serde_yaml::{Mapping, Value};
use std::borrow::Cow;

/// A mapping whose keys are the user's own.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FreeForm(pub Mapping);

impl<'de> Deserialize<'de> for FreeForm {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Mapping::deserialize(deserializer).map(FreeForm)
    }
}

impl JsonSchema for FreeForm {
    fn schema_name() -> Cow<'static, str> {
        "FreeForm".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "object", "description": "Keys of one's own."})
    }

    fn inline_schema() -> bool {
        true
    }
}

/// A list whose items are another program's own.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FreeList(pub Vec<Value>);

impl<'de> Deserialize<'de> for FreeList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::deserialize(deserializer).map(FreeList)
    }
}

impl JsonSchema for FreeList {
    fn schema_name() -> Cow<'static, str> {
        "FreeList".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "array"})
    }

    fn inline_schema() -> bool {
        true
    }
}

impl<'de> Deserialize<'de> for PrecisionName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = match Value::deserialize(deserializer)? {
            Value::String(text) => text,
            Value::Number(number) => number.to_string(),
            other => return Err(Error::custom(format!("{} is no precision", kind(&other)))),
        };
        let known = Self::NAMES.iter().find(|(name, _)| *name == text);
        known
            .map(|(_, precision)| PrecisionName(*precision))
            .ok_or_else(|| Error::custom(format!("`{text}` is no precision")))
    }
}

impl JsonSchema for PrecisionName {
    fn schema_name() -> Cow<'static, str> {
        "Precision".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let mut values: Vec<serde_json::Value> = vec![32.into(), 16.into()];
        values.extend(Self::NAMES.iter().map(|(name, _)| (*name).into()));
        json_schema!({"enum": values})
    }

    fn inline_schema() -> bool {
        true
    }
}

/// A number of batches or steps, or a share of an epoch as Lightning reads floats.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amount {
    /// So many.
    Count(u64),
    /// This share of all, from 0 to 1.
    Share(f64),
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        match (value.as_u64(), value.as_f64()) {
            (Some(count), _) => Ok(Amount::Count(count)),
            (None, Some(share)) if (0.0..=1.0).contains(&share) => Ok(Amount::Share(share)),
            _ => Err(Error::custom(
                "a share lies between 0.0 and 1.0; give a whole number, or such a share",
            )),
        }
    }
}

impl JsonSchema for Amount {
    fn schema_name() -> Cow<'static, str> {
        "Amount".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "number", "minimum": 0})
    }

    fn inline_schema() -> bool {
        true
    }
}

/// One text or a list of texts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Texts(pub Vec<String>);

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::String(text) => Ok(Texts(vec![text])),
            list => Vec::deserialize(list).map(Texts).map_err(Error::custom),
        }
    }
}

impl JsonSchema for Texts {
    fn schema_name() -> Cow<'static, str> {
        "Texts".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": ["string", "array"], "items": {"type": "string"}})
    }

    fn inline_schema() -> bool {
        true
    }
}

/// `model.data.data_prefix`: which ready token files are read.
#[derive(Clone, Debug, PartialEq)]
pub enum DataPrefix {
    /// Files with weights, cut into splits by `splits_string`.
    Blend(Vec<Weighted>),
    /// Files of each split.
    Splits {
        /// Learned from.
        train: Vec<Weighted>,
        /// Watched during training.
        validation: Vec<Weighted>,
        /// Held out to the end.
        test: Vec<Weighted>,
    },
    /// `{dataset: …}` and the like: a name that some program of its own gave a meaning.
    Placeholder(String),
}

/// A token file's path without `.bin` and its weight.
#[derive(Clone, Debug, PartialEq)]
pub struct Weighted {
    /// Share of the samples, relative to the other weights.
    pub weight: f64,
    /// Path of the `.bin` and `.idx` files, without the ending.
    pub prefix: String,
}

impl<'de> Deserialize<'de> for DataPrefix {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        data_prefix(&value).map_err(Error::custom)
    }
}

fn data_prefix(value: &Value) -> Result<DataPrefix, String> {
    let first = value.as_sequence().and_then(|list| list.first());
    if let Some(named) = first.filter(|item| item.is_mapping()) {
        return data_prefix(named);
    }
    let Some(mapping) = value.as_mapping() else { return blend(value).map(DataPrefix::Blend) };
    let placeholder = ["dataset", "ignored"].into_iter().find_map(|key| mapping.get(key));
    if let Some(name) = placeholder {
        return Ok(DataPrefix::Placeholder(name.as_str().unwrap_or_default().to_owned()));
    }
    let files = |key: &str| mapping.get(key).map_or(Ok(Vec::new()), blend);
    Ok(DataPrefix::Splits {
        train: files("train")?,
        validation: files("validation")?,
        test: files("test")?,
    })
}

/// `path`, `[path]`, or `[weight, path, weight, path, …]`; weights may stand in quotes.
fn blend(value: &Value) -> Result<Vec<Weighted>, String> {
    let single = |prefix: &str| vec![Weighted { weight: 1.0, prefix: prefix.to_owned() }];
    match value {
        Value::Null => Ok(Vec::new()),
        Value::String(prefix) => Ok(single(prefix)),
        Value::Sequence(list) => match list.as_slice() {
            [] => Ok(Vec::new()),
            [Value::String(prefix)] => Ok(single(prefix)),
            items => items.chunks(2).map(pair).collect(),
        },
        other => Err(format!("{} is no path", kind(other))),
    }
}

/// What to do about a list that is no blend; the part after `; ` of a message is advice.
const TURNS: &str = "weights and paths take turns: [0.7, path, 0.3, other_path]";

fn pair(items: &[Value]) -> Result<Weighted, String> {
    let [weight, prefix] = items else {
        return Err(format!("the last value of the list has no partner; {TURNS}"));
    };
    let number = weight.as_f64().or_else(|| weight.as_str()?.trim().parse().ok());
    match (number, prefix.as_str()) {
        (Some(weight), Some(prefix)) => Ok(Weighted { weight, prefix: prefix.to_owned() }),
        (None, _) => {
            let shown = weight.as_str().unwrap_or(kind(weight));
            Err(format!("`{shown}` stands where a weight belongs; {TURNS}"))
        }
        (_, None) => Err(format!("{} stands where a path belongs; {TURNS}", kind(prefix))),
    }
}

impl JsonSchema for DataPrefix {
    fn schema_name() -> Cow<'static, str> {
        "DataPrefix".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let files = json_schema!({
            "type": ["string", "array", "null"],
            "items": {"type": ["string", "number"]}
        });
        json_schema!({
            "type": ["string", "array", "object"],
            "items": {
                "type": ["string", "number", "object"],
                "properties": {"dataset": {"type": "string"}},
                "additionalProperties": false
            },
            "properties": {
                "train": files,
                "validation": files,
                "test": files,
                "dataset": {"type": "string", "description": "A name that trlx's scripts gave a meaning; no data here."},
                "ignored": {"type": "string", "description": "No data here."}
            },
            "additionalProperties": false
        })
    }

    fn inline_schema() -> bool {
        true
    }
}

/// What a value is, for messages.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Sequence(_) => "a list",
        Value::Mapping(_) | Value::Tagged(_) => "a mapping",
    }
}
