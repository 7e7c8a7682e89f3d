//! Templates over the fields of a row (minijinja), strict about what is not there or null; chat templates.

pub mod chat;
mod conversation;
mod expression;
mod null;
mod python;

pub use expression::RowExpression;

use crate::base::suggest::did_you_mean;
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
    /// Whether it may join texts with `~`, and does not write the word `None` itself.
    joins: bool,
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
        null::refuse(&mut environment);
        environment.add_template_owned(NAME, source.to_owned()).map_err(fail)?;
        let template = environment.get_template(NAME).map_err(fail)?;
        let mut fields: Vec<String> = template.undeclared_variables(false).into_iter().collect();
        fields.sort();
        fields.retain(|field| environment.globals().all(|(global, _)| global != field));
        let joins = source.contains('~') && !source.contains("None");
        Ok(Template { environment, fields, joins })
    }

    /// The text for a row; else what is wrong.
    pub fn render(&self, row: &Map<String, Value>) -> Result<String, String> {
        let render = || self.environment.get_template(NAME)?.render(Serde(row));
        let text = render().map_err(|error: minijinja::Error| {
            let missing = self.fields.iter().find(|field| !row.contains_key(*field));
            match missing.filter(|_| error.kind() == ErrorKind::UndefinedError) {
                Some(field) => missing_field(field, row),
                None if null::is_refusal(&error) => null_field(self.null(row)),
                None => error.to_string(),
            }
        })?;
        // `~` joins texts inside the engine, where null becomes a word that stands nowhere else.
        let joined = self.joins && text.contains("None") && !mentions_none(row.values());
        match self.null(row).filter(|_| joined) {
            Some(field) => Err(null_field(Some(field))),
            None => Ok(text),
        }
    }

    /// The first field that it reads and that is null.
    fn null(&self, row: &Map<String, Value>) -> Option<&str> {
        let is_null = |field: &&String| row.get(*field).is_some_and(Value::is_null);
        self.fields.iter().find(is_null).map(String::as_str)
    }
}

fn mentions_none<'v>(mut values: impl Iterator<Item = &'v Value>) -> bool {
    values.any(|value| match value {
        Value::String(text) => text.contains("None"),
        Value::Array(items) => mentions_none(items.iter()),
        Value::Object(fields) => mentions_none(fields.values()),
        _ => false,
    })
}

/// Says that `field` has no text to learn; none when the null is not a field of the row itself.
fn null_field(field: Option<&str>) -> String {
    match field {
        Some(field) => format!(
            "its field `{field}` is null: leave such rows out, or write `{{{{ {field} or '' }}}}`"
        ),
        None => "a value that is written is null: leave such rows out, or write `or ''` after it"
            .to_owned(),
    }
}

/// Says that `row` lacks `field`, which of its fields may be meant, and what it has.
pub fn missing_field(field: &str, row: &Map<String, Value>) -> String {
    let mut known: Vec<_> = row.keys().map(String::as_str).collect();
    known.sort_unstable();
    let meant = did_you_mean(field, known.iter().copied()).map(|meant| format!("{meant} "));
    let meant = meant.unwrap_or_default();
    format!("it has no field `{field}` ({meant}its fields: {})", known.join(", "))
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
    fn null_is_never_written_as_a_word() {
        let row =
            serde_json::json!({"a": null, "b": "x", "deep": {"c": null}, "list": ["x", null]});
        let row = row.as_object().unwrap();
        let told = |source: &str| Template::parse("answer", source).unwrap().render(row);
        let refused = "its field `a` is null: leave such rows out, or write `{{ a or '' }}`";
        for source in ["{{ a }}", "{{ b }} {{ a | trim }}", "{{ a|upper }}", "{{ b ~ ' ' ~ a }}"] {
            assert_eq!(told(source), Err(refused.to_owned()), "{source}");
        }
        for source in ["{{ deep.c }}", "{{ list | join(' ') }}"] {
            let error = told(source).unwrap_err();
            assert!(error.starts_with("a value that is written is null"), "{source}: {error}");
        }
        let fine = [
            ("{{ a or '' }}{{ b | upper }}", "X"),
            ("{% if a is none %}none{% else %}{{ a }}{% endif %}", "none"),
            ("{{ b | replace('x', 'None') }}", "None"),
            ("{{ (a or b) ~ b | trim }}", "xx"),
            ("{{ b | indent(width=2, first=true) }}", "  x"),
        ];
        for (source, expected) in fine {
            assert_eq!(told(source), Ok(expected.to_owned()), "{source}");
        }
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
