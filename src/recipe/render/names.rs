//! Filters, tests and functions that a template names and that do not exist. The engine asks for
//! them only when a row gets there, so they are looked for in the text.

use crate::base::suggest::did_you_mean;
use minijinja::Environment;
use regex::Regex;
use std::collections::BTreeSet;

/// What is wrong with a template or an expression.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Flaw {
    /// The fault.
    pub(crate) reason: String,
    /// What was probably meant.
    pub(crate) meant: Option<String>,
}

impl From<String> for Flaw {
    fn from(reason: String) -> Flaw {
        Flaw { reason, meant: None }
    }
}

/// Names that an environment has beside the engine's own.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Beside {
    pub(super) filters: &'static [&'static str],
    pub(super) functions: &'static [&'static str],
}

/// The engine's filters, for "did you mean".
const FILTERS: &[&str] = &[
    "abs",
    "attr",
    "batch",
    "bool",
    "capitalize",
    "chain",
    "count",
    "d",
    "default",
    "dictsort",
    "e",
    "escape",
    "first",
    "float",
    "format",
    "groupby",
    "indent",
    "int",
    "items",
    "join",
    "last",
    "length",
    "lines",
    "list",
    "lower",
    "map",
    "max",
    "min",
    "pprint",
    "reject",
    "rejectattr",
    "replace",
    "reverse",
    "round",
    "safe",
    "select",
    "selectattr",
    "slice",
    "sort",
    "split",
    "string",
    "sum",
    "title",
    "tojson",
    "trim",
    "unique",
    "upper",
    "zip",
];
/// The engine's tests.
const TESTS: &[&str] = &[
    "boolean",
    "defined",
    "divisibleby",
    "endingwith",
    "eq",
    "equalto",
    "escaped",
    "even",
    "false",
    "filter",
    "float",
    "ge",
    "greaterthan",
    "gt",
    "in",
    "int",
    "integer",
    "iterable",
    "le",
    "lessthan",
    "lower",
    "lt",
    "mapping",
    "ne",
    "none",
    "number",
    "odd",
    "safe",
    "sameas",
    "sequence",
    "startingwith",
    "string",
    "test",
    "true",
    "undefined",
    "upper",
];
/// Names that the engine gives to parts of a template.
const GIVEN: &[&str] = &["caller", "loop", "self", "super", "varargs", "kwargs"];

/// Looks for names that do not exist in `code`: expressions, or what [`of_template`] gives.
/// `undeclared` are the names that the template does not define itself.
pub(super) fn check(
    environment: &Environment<'_>,
    code: &str,
    undeclared: &BTreeSet<String>,
    beside: Beside,
) -> Result<(), Flaw> {
    let code = without_texts(code);
    for name in named(&code, r"(?:\||(?:^|\n)\s*filter\s)\s*([A-Za-z_]\w*)") {
        if !beside.filters.contains(&name) && !answers(environment, name, "filter") {
            return Err(unknown("filter", name, FILTERS.iter().chain(beside.filters)));
        }
    }
    for name in named(&code, r"(?:^|[^\w.])is\s+(?:not\s+)?([A-Za-z_]\w*)") {
        if name != "not" && !answers(environment, name, "test") {
            return Err(unknown("test", name, TESTS.iter()));
        }
    }
    let globals: Vec<&str> = environment.globals().map(|(name, _)| name).collect();
    for name in calls(&code) {
        let known = globals.contains(&name)
            || beside.functions.contains(&name)
            || GIVEN.contains(&name)
            || !undeclared.contains(name);
        if !known {
            return Err(unknown("function", name, globals.iter().chain(beside.functions)));
        }
    }
    Ok(())
}

fn unknown<'n>(kind: &str, name: &str, known: impl Iterator<Item = &'n &'n str>) -> Flaw {
    let meant = did_you_mean(name, known.copied());
    Flaw { reason: format!("there is no {kind} `{name}`"), meant }
}

/// Asks the engine's tests `filter` and `test` for a name.
fn answers(environment: &Environment<'_>, name: &str, kind: &str) -> bool {
    let asked = environment.compile_expression_owned(format!("'{name}' is {kind}"));
    asked.and_then(|asked| asked.eval(())).is_ok_and(|known| known.is_true())
}

/// What the only group of a pattern finds; a pattern that is none finds nothing.
fn named<'c>(code: &'c str, pattern: &str) -> BTreeSet<&'c str> {
    let found = Regex::new(pattern).ok();
    let found = found.iter().flat_map(|pattern| pattern.captures_iter(code));
    found.filter_map(|found| Some(found.get(1)?.as_str())).collect()
}

/// Names before an opening bracket that are neither methods nor filters nor tests; one that the
/// template asks about (`x is defined`) may be missing.
fn calls(code: &str) -> BTreeSet<&str> {
    let Ok(pattern) = Regex::new(r"([A-Za-z_]\w*)\s*\(") else {
        return BTreeSet::new();
    };
    let asked = named(code, r"([A-Za-z_]\w*)\s+is\s+(?:not\s+)?(?:un)?defined");
    let is_call = |name: &regex::Match<'_>| {
        let before = code.get(..name.start()).unwrap_or_default().trim_end();
        let word = before.rsplit(|c: char| !c.is_alphanumeric() && c != '_').next();
        !before.ends_with(['.', '|']) && !matches!(word, Some("is" | "not" | "filter" | "macro"))
    };
    let names = pattern.captures_iter(code).filter_map(|found| found.get(1));
    let names = names.filter(is_call).map(|name| name.as_str());
    names.filter(|name| !asked.contains(name)).collect()
}

/// The code of a template, a line for each tag; comments and raw parts are left out.
pub(super) fn of_template(source: &str) -> String {
    let mut code = String::new();
    let mut rest = source;
    while let Some(at) = rest.find('{') {
        let tag = rest.get(at + 2..).unwrap_or_default();
        let close = match rest.as_bytes().get(at + 1) {
            Some(b'{') => "}}",
            Some(b'%') => "%}",
            Some(b'#') => "#}",
            _ => {
                rest = rest.get(at + 1..).unwrap_or_default();
                continue;
            }
        };
        // A bracket in a text does not close; blanks have the bytes of what they stand for.
        let hidden = if close == "#}" { tag.to_owned() } else { without_texts(tag) };
        let end = hidden.find(close).unwrap_or(tag.len());
        let inside = tag.get(..end).unwrap_or_default();
        rest = tag.get(end + 2..).unwrap_or_default();
        let words = inside.trim_matches(|c: char| c.is_whitespace() || "-+".contains(c));
        if close == "%}" && words == "raw" {
            rest = rest.split_once("endraw").map_or("", |(_, rest)| rest);
        } else if close != "#}" {
            code.push_str(words);
            code.push('\n');
        }
    }
    code
}

/// Code with blanks in place of what stands in quotes, byte for byte.
fn without_texts(code: &str) -> String {
    let mut quote = None;
    let mut escaped = false;
    let mut plain = String::with_capacity(code.len());
    for character in code.chars() {
        let inside = quote.is_some();
        match quote {
            Some(open) => {
                if character == open && !escaped {
                    quote = None;
                }
                escaped = character == '\\' && !escaped;
            }
            None if character == '\'' || character == '"' => quote = Some(character),
            None => {}
        }
        if inside && quote.is_some() {
            plain.extend(std::iter::repeat_n(' ', character.len_utf8()));
        } else {
            plain.push(character);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::render::{
        check_chat_template, check_expression, check_syntax, check_template,
    };

    fn told(result: Result<(), Flaw>) -> (String, Option<String>) {
        result.map_or_else(|flaw| (flaw.reason, flaw.meant), |()| ("fine".to_owned(), None))
    }

    fn refused(result: Result<(), Flaw>, reason: &str, meant: Option<&str>) {
        let meant = meant.map(|meant| format!("did you mean `{meant}`?"));
        assert_eq!(told(result), (reason.to_owned(), meant));
    }

    #[test]
    fn names_that_do_not_exist_are_found() {
        refused(check_template("{{ a|uper }}"), "there is no filter `uper`", Some("upper"));
        refused(
            check_template("{% if a is strnig %}{% endif %}"),
            "there is no test `strnig`",
            Some("string"),
        );
        refused(
            check_template("{% if a is not xyzzy %}{% endif %}"),
            "there is no test `xyzzy`",
            None,
        );
        refused(check_template("{{ rnge(3) }}"), "there is no function `rnge`", Some("range"));
        refused(
            check_template("{% filter trimm %}x{% endfilter %}"),
            "there is no filter `trimm`",
            Some("trim"),
        );
        refused(check_expression("output|lenth"), "there is no filter `lenth`", Some("length"));
        refused(check_syntax("endings | lits"), "there is no filter `lits`", Some("list"));
        refused(
            check_chat_template("{{ messages|tojsn }}"),
            "there is no filter `tojsn`",
            Some("tojson"),
        );
        refused(
            check_chat_template("{{ raise_exeption('x') }}"),
            "there is no function `raise_exeption`",
            Some("raise_exception"),
        );
    }

    #[test]
    fn what_a_template_can_do_is_let_through() {
        let fine = [
            "{{ '| uper }} is what' ~ \"a\\\"|no\" }} {{ a | upper }}",
            "{% raw %}{{ a|uper }}{% endraw %}{# {{ a|uper }} #} a|uper",
            "{% macro f(x) %}{{ x }}{% endmacro %}{{ f(1) }}{{ a.strip(' ') }} {{ title | title() }}",
            "{% set ns = namespace(n=0) %}{% for x in range(3) %}{{ loop.cycle(1, 2) }}{% endfor %}",
            "{% if a is divisibleby(3) and (b is not defined) %}{% endif %}{{ {'is': 1}['is'] }}",
            "{%- if f is defined -%}{{ f(1) }}{%- endif -%}{{ a|map(attribute='x')|list }}",
        ];
        for source in fine {
            assert_eq!(told(check_template(source)).0, "fine", "{source}");
        }
        let chat = "{% generation %}{{ messages[0]['content'] | trim }}{% endgeneration %}\
                    {{ strftime_now('%d') }}{{ bos_token }}{{ raise_exception('no') }}";
        assert_eq!(told(check_chat_template(chat)).0, "fine");
    }

    #[test]
    fn the_names_to_suggest_are_the_engines() {
        let environment = Environment::new();
        assert!(FILTERS.iter().all(|name| answers(&environment, name, "filter")));
        assert!(TESTS.iter().all(|name| answers(&environment, name, "test")));
    }
}
