//! Expressions over the fields of a row (minijinja), whose value is text, a number or a list.

use super::{Error, missing_field};
use crate::base::template_size::{MAX_CODE, code_length};
use minijinja::value::Serde;
use minijinja::{Environment, ErrorKind, UndefinedBehavior};
use serde_json::{Map, Value};

/// Steps of one evaluation, in minijinja's units.
const FUEL: u64 = 1_000_000;

/// An expression that parses.
#[derive(Debug)]
pub struct RowExpression {
    environment: Environment<'static>,
    source_text: String,
    /// Names that it reads, sorted.
    fields: Vec<String>,
}

impl RowExpression {
    /// Parses `source`; `what` says whose expression it is.
    pub fn parse(what: &str, source: &str) -> Result<RowExpression, Error> {
        let fail = |reason: String| Error {
            what: what.to_owned(),
            form: "an expression",
            source_text: source.chars().take(MAX_CODE).collect(),
            reason: reason.into(),
        };
        if code_length(source) > MAX_CODE {
            return Err(fail(format!("it has more than {MAX_CODE} bytes")));
        }
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_fuel(Some(FUEL));
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        let parsed = environment.compile_expression(source);
        let parsed = parsed.map_err(|error| fail(error.to_string()))?;
        let mut fields: Vec<String> = parsed.undeclared_variables(false).into_iter().collect();
        fields.sort_unstable();
        drop(parsed);
        Ok(RowExpression { environment, source_text: source.to_owned(), fields })
    }

    /// Its value for a row, as JSON; else what is wrong.
    pub fn value(&self, row: &Map<String, Value>) -> Result<Value, String> {
        let evaluate = || {
            let value = self.environment.compile_expression(&self.source_text)?.eval(Serde(row))?;
            if value.is_undefined() {
                return Err(ErrorKind::UndefinedError.into());
            }
            Ok(value)
        };
        let value = evaluate().map_err(|error: minijinja::Error| {
            let missing = self.fields.iter().find(|field| !row.contains_key(*field));
            match missing.filter(|_| error.kind() == ErrorKind::UndefinedError) {
                Some(field) => missing_field(field, row),
                None => format!("`{}`: {error}", self.source_text),
            }
        })?;
        serde_json::to_value(&value).map_err(|error| format!("`{}`: {error}", self.source_text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn value(source: &str) -> Result<Value, String> {
        let row = json!({"endings": ["a", "b"], "label": "1", "question": {"choices": [
            {"text": "x", "label": "A"}, {"text": "y", "label": "B"}]}});
        RowExpression::parse("choices", source).unwrap().value(row.as_object().unwrap())
    }

    #[test]
    fn values_are_those_of_the_fields() {
        assert_eq!(value("endings"), Ok(json!(["a", "b"])));
        assert_eq!(value("label | int"), Ok(json!(1)));
        assert_eq!(value("question.choices | map(attribute='text') | list"), Ok(json!(["x", "y"])));
        assert_eq!(value("[endings[1], label]"), Ok(json!(["b", "1"])));
        let error = value("gold").unwrap_err();
        assert_eq!(error, "it has no field `gold` (its fields: endings, label, question)");
        let error = RowExpression::parse("choices", "endings |").unwrap_err().to_string();
        assert!(error.starts_with("choices `endings |` is not"), "{error}");
    }
}
