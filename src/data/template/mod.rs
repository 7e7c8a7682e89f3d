//! Templates over the fields of a row (minijinja), strict about fields that are not there; chat templates.

pub mod chat;
mod conversation;
mod expression;
mod python;

pub use expression::RowExpression;

use crate::base::template_size::{MAX_CODE, MAX_TAGS, too_much};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, ErrorKind, UndefinedBehavior};
use serde_json::{Map, Value};

/// A template or an expression that does not parse.
#[derive(Debug, thiserror::Error)]
#[error("{what} `{source_text}` is not {form}: {reason}")]
pub struct Error {
    what: String,
    form: &'static str,
    source_text: Box<str>,
    reason: Box<str>,
}

/// A parsed template.
#[derive(Debug)]
pub struct Template {
    environment: Environment<'static>,
    /// Names that it reads, sorted.
    fields: Vec<String>,
}

/// The only template of an environment. The name has no extension, so nothing is escaped.
const NAME: &str = "template";

impl Template {
    /// Parses `source`; `what` says whose template it is.
    pub fn parse(what: &str, source: &str) -> Result<Template, Error> {
        let fail = |error: minijinja::Error| Error {
            what: what.to_owned(),
            form: "a template",
            source_text: source.into(),
            reason: error.to_string().into(),
        };
        if too_much(source).is_some() {
            let reason =
                format!("it has more than {MAX_TAGS} tags, or one of more than {MAX_CODE} bytes");
            let (what, source_text) = (what.to_owned(), "".into());
            let (form, reason) = ("a template", reason.into());
            return Err(Error { what, form, source_text, reason });
        }
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        let mut syntax = SyntaxConfig::builder();
        syntax.keep_trailing_newline(true);
        environment.set_syntax(syntax.build().map_err(fail)?);
        // Python's string methods, which people know from Jinja: `{{ term.strip() }}`.
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_template_owned(NAME, source.to_owned()).map_err(fail)?;
        let template = environment.get_template(NAME).map_err(fail)?;
        let mut fields: Vec<String> = template.undeclared_variables(false).into_iter().collect();
        fields.sort();
        fields.retain(|field| environment.globals().all(|(global, _)| global != field));
        Ok(Template { environment, fields })
    }

    /// The text for a row; else what is wrong.
    pub fn render(&self, row: &Map<String, Value>) -> Result<String, String> {
        let render = || self.environment.get_template(NAME)?.render(Serde(row));
        render().map_err(|error: minijinja::Error| {
            let missing = self.fields.iter().find(|field| !row.contains_key(*field));
            match missing.filter(|_| error.kind() == ErrorKind::UndefinedError) {
                Some(field) => missing_field(field, row),
                None => error.to_string(),
            }
        })
    }
}

/// Says that `row` lacks `field`, and what it has.
pub fn missing_field(field: &str, row: &Map<String, Value>) -> String {
    let mut known: Vec<_> = row.keys().map(String::as_str).collect();
    known.sort_unstable();
    format!("it has no field `{field}` (its fields: {})", known.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Map<String, Value> {
        let value = serde_json::json!({"term": "<oak> ", "size": 3, "deep": {"kind": "plant"}});
        value.as_object().unwrap().clone()
    }

    fn check(source: &str, expected: &str) {
        let template = Template::parse("prompt", source).unwrap();
        assert_eq!(template.render(&row()).unwrap_or_else(|error| format!("!{error}")), expected);
    }

    #[test]
    fn fields_are_put_in_as_they_are() {
        check("{{ term }}: {{ size }}\n", "<oak> : 3\n");
        check("{{ term.strip() | upper }} {{ deep.kind }}", "<OAK> plant");
        check("{% if other is defined %}x{% else %}y{% endif %}", "y");
    }

    #[test]
    fn unknown_fields_are_refused() {
        check("{{ gloss }}", "!it has no field `gloss` (its fields: deep, size, term)");
        let template = Template::parse("prompt", "{{ deep.none }}").unwrap();
        assert!(template.render(&row()).is_err());
        let error = Template::parse("prompt", "{{ term").unwrap_err().to_string();
        assert!(error.starts_with("prompt `{{ term` is not a template: "), "{error}");
    }
}
