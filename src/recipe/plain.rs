//! Resolved values as JSON, for the schema; what JSON cannot say is a problem.

use super::path::Path;
use super::problem::Problem;
use super::resolve::Resolved;
use serde_json::{Map, Number, Value as Json};
use serde_yaml::Value;

/// The values as JSON, and a problem for each that has none.
pub(super) fn convert(resolved: &Resolved) -> (Json, Vec<Problem>) {
    let mut converter = Converter { resolved, problems: Vec::new() };
    let json = converter.value(&resolved.values, &Path::default());
    (json, converter.problems)
}

struct Converter<'a> {
    resolved: &'a Resolved,
    problems: Vec<Problem>,
}

impl Converter<'_> {
    fn value(&mut self, value: &Value, path: &Path) -> Json {
        match value {
            Value::Null => Json::Null,
            Value::Bool(value) => (*value).into(),
            Value::Number(value) => self.number(value, path),
            Value::String(text) => text.clone().into(),
            Value::Sequence(items) => {
                let items = items.iter().enumerate();
                items.map(|(index, item)| self.value(item, &path.index(index))).collect()
            }
            Value::Mapping(mapping) => {
                let entry = |(key, value)| {
                    let key = self.key(key, path)?;
                    let value = self.value(value, &path.key(&key));
                    Some((key, value))
                };
                Json::Object(mapping.iter().filter_map(entry).collect::<Map<_, _>>())
            }
            Value::Tagged(tagged) => self.value(&tagged.value, path),
        }
    }

    fn number(&mut self, value: &serde_yaml::Number, path: &Path) -> Json {
        if let Some(value) = value.as_u64() {
            return value.into();
        }
        if let Some(value) = value.as_i64() {
            return value.into();
        }
        value.as_f64().and_then(Number::from_f64).map_or_else(
            || {
                let message = format!("`{path}` must be a finite number, not {value}");
                self.problem("recipe::not_finite", message, path, "not finite");
                Json::Null
            },
            Json::Number,
        )
    }

    /// Free keys may be numbers or booleans, as YAML reads them.
    fn key(&mut self, key: &Value, path: &Path) -> Option<String> {
        match key {
            Value::String(key) => Some(key.clone()),
            Value::Number(number) => Some(number.to_string()),
            Value::Bool(key) => Some(key.to_string()),
            _ => {
                let message = format!("a key of `{path}` is neither text nor a number");
                self.problem("recipe::wrong_key", message, path, "in this mapping");
                None
            }
        }
    }

    fn problem(&mut self, code: &'static str, message: String, path: &Path, label: &str) {
        let place = self.resolved.marks.get(path).and_then(|marks| marks.value.place());
        self.problems.push(Problem::error(code, message).at(place, label).about(path.clone()));
    }
}
