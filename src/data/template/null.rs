//! Null in a row: it says nothing, so templates refuse to write the word `None` for it.

use minijinja::value::{Rest, ValueKind, ValueOrKwargs};
use minijinja::{Environment, Error, ErrorKind, Output, State, Value, escape_formatter, filters};

/// The error's detail, by which [`is_refusal`] knows it again.
const PRINTED: &str = "null has no text";

/// Makes null an error wherever a template would turn it into text: in `{{ … }}` and in the filters
/// that take texts.
pub(super) fn refuse(environment: &mut Environment<'static>) {
    environment.set_formatter(print);
    let of_texts = [
        ("upper", Value::from_function(filters::upper)),
        ("lower", Value::from_function(filters::lower)),
        ("title", Value::from_function(filters::title)),
        ("capitalize", Value::from_function(filters::capitalize)),
        ("trim", Value::from_function(filters::trim)),
        ("replace", Value::from_function(filters::replace)),
        ("string", Value::from_function(filters::string)),
        ("indent", Value::from_function(filters::indent)),
        ("join", Value::from_function(filters::join)),
    ];
    for (name, filter) in of_texts {
        let guarded = move |state: &mut State, value: Value, rest: Rest<ValueOrKwargs>| {
            if value.is_none() || (name == "join" && holds_null(&value)) {
                return Err(refusal());
            }
            let arguments: Vec<Value> = [value].into_iter().chain(rest.into_values()).collect();
            filter.call(state, &arguments)
        };
        environment.add_filter(name, guarded);
    }
}

fn holds_null(list: &Value) -> bool {
    let items = list.try_iter().ok().filter(|_| list.kind() == ValueKind::Seq);
    items.into_iter().flatten().any(|item| item.is_none())
}

/// Whether an error says that null was to be written.
pub(super) fn is_refusal(error: &Error) -> bool {
    error.detail() == Some(PRINTED)
}

fn refusal() -> Error {
    Error::new(ErrorKind::InvalidOperation, PRINTED)
}

fn print(out: &mut Output, state: &mut State, value: &Value) -> Result<(), Error> {
    if value.is_none() { Err(refusal()) } else { escape_formatter(out, state, value) }
}
