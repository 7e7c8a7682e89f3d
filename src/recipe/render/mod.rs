//! `${{ … }}`: expressions that are evaluated per scalar, before overrides and interpolations.

mod context;
mod file;
mod names;

pub(crate) use context::{Context, is_declared, variable};
pub(crate) use file::{Rendered, is_template, render_file};
pub(crate) use names::Flaw;

use super::path::Path;
use super::place::Place;
use super::problem::Problem;
use super::scalar::python_text;
use super::tree::{Data, Map, Node, key_text};
use crate::base::chat_markup::with_filters;
use crate::base::suggest::did_you_mean;
use crate::base::template_size::{MAX_CODE, MAX_TAGS, code_length, too_much};
use minijinja::{Environment, Error, ErrorKind, Value as Dynamic};
use serde_yaml::Value;
use std::collections::BTreeSet;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

const OPEN: &str = "${{";
/// Steps and data of one expression, in minijinja's units (about 64 bytes each).
const FUEL: u64 = 50_000;
/// The most expressions of one recipe, and the most variables.
const MAX_EXPRESSIONS: usize = 10_000;
const MAX_VARIABLES: usize = 500;
/// Problems after which no more expressions are evaluated.
const MAX_PROBLEMS: usize = 50;

/// Replaces every expression in the values of a tree. `vars` come first, in their order, so that
/// they may use each other.
pub(crate) fn render(tree: &mut Node, context: &mut Context) -> Vec<Problem> {
    let environment = environment(FUEL);
    let mut renderer = Renderer {
        environment: &environment,
        context,
        problems: Vec::new(),
        left: MAX_EXPRESSIONS,
    };
    let Data::Map(map) = &mut tree.data else { return renderer.problems };
    renderer.variables(map);
    for (key, value) in map.iter_mut().filter(|(key, _)| key.as_str() != Some("vars")) {
        renderer.walk(&Path::default().key(&key_text(key)), value);
    }
    renderer.problems
}

/// The language of all templates of recipes: strict about what is not defined, and bounded.
fn environment<'s>(fuel: u64) -> Environment<'s> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(minijinja::UndefinedBehavior::Strict);
    environment.set_debug(true);
    environment.set_fuel(Some(fuel));
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment
}

/// What a metric's expression may speak of.
const OF_A_SAMPLE: [&str; 3] = ["prompt", "expected", "output"];

/// What is wrong with a metric's expression, if anything: its form, or a name that no sample has.
pub(crate) fn check_expression(source: &str) -> Result<(), Flaw> {
    let environment = environment(FUEL);
    let undeclared = expression_names(&environment, source)?;
    let globals: Vec<&str> = environment.globals().map(|(name, _)| name).collect();
    let known = |name: &str| OF_A_SAMPLE.contains(&name) || globals.contains(&name);
    match undeclared.into_iter().find(|name| !known(name)) {
        Some(name) => Err(Flaw {
            meant: did_you_mean(&name, OF_A_SAMPLE),
            reason: format!("a sample has no `{name}`"),
        }),
        None => Ok(()),
    }
}

/// What is wrong with an expression over the fields of a row, if anything.
pub(crate) fn check_syntax(source: &str) -> Result<(), Flaw> {
    expression_names(&environment(FUEL), source).map(|_| ())
}

/// The names that an expression reads; those of filters and the like exist.
fn expression_names(environment: &Environment<'_>, source: &str) -> Result<BTreeSet<String>, Flaw> {
    if code_length(source) > MAX_CODE {
        return Err(format!("it has more than {MAX_CODE} bytes").into());
    }
    let parsed = catch(|| environment.compile_expression(source));
    let parsed = parsed.map_err(|error| error.to_string())?;
    let undeclared = parsed.undeclared_variables(false).into_iter().collect();
    names::check(environment, source, &undeclared, names::Beside::default())?;
    Ok(undeclared)
}

/// What is wrong with a template over the fields of a row, if anything.
pub(crate) fn check_template(source: &str) -> Result<(), Flaw> {
    template(source, names::Beside::default())
}

/// What is wrong with a chat template, if anything.
pub(crate) fn check_chat_template(source: &str) -> Result<(), Flaw> {
    let beside =
        names::Beside { filters: &["generation"], functions: &["raise_exception", "strftime_now"] };
    template(&with_filters(source).0, beside)
}

fn template(source: &str, beside: names::Beside) -> Result<(), Flaw> {
    if too_much(source).is_some() {
        let reason = format!("more than {MAX_TAGS} tags, or one of more than {MAX_CODE} bytes");
        return Err(reason.into());
    }
    let environment = environment(FUEL);
    let parsed = catch(|| environment.template_from_str(source));
    let parsed = parsed.map_err(|error| error.to_string())?;
    let undeclared = parsed.undeclared_variables(false).into_iter().collect();
    names::check(&environment, &names::of_template(source), &undeclared, beside)
}

/// A problem, and the part of the expression that it is about.
type Failed = (Problem, Option<Range<usize>>);

struct Renderer<'r> {
    environment: &'r Environment<'r>,
    context: &'r mut Context,
    problems: Vec<Problem>,
    /// Expressions that may still be evaluated.
    left: usize,
}

impl Renderer<'_> {
    fn variables(&mut self, recipe: &mut Map) {
        let Some(node) = recipe.get_mut("vars") else { return };
        let place = node.origin.place().cloned();
        let vars = Path::default().key("vars");
        let Data::Map(map) = &mut node.data else { return };
        if map.len() > MAX_VARIABLES {
            let message = format!("`vars` holds more than {MAX_VARIABLES} variables");
            let problem = Problem::error("template::too_much", message);
            return self.problems.push(problem.about(vars).at(place.as_ref(), "here"));
        }
        for (name, value) in map.iter_mut() {
            let name = key_text(name);
            self.walk(&vars.key(&name), value);
            self.context.set_variable(&name, &value.to_value());
        }
    }

    fn walk(&mut self, path: &Path, node: &mut Node) {
        match &mut node.data {
            Data::Scalar(Value::String(text)) if text.contains(OPEN) => {
                let text = std::mem::take(text);
                let rendered = self.scalar(path, &text, node.origin.place());
                node.data = match rendered {
                    Some(value) => Node::from_value(&value, &node.origin).data,
                    None => Data::Scalar(Value::String(text)),
                };
            }
            Data::Scalar(_) => {}
            Data::List(items) => {
                for (at, item) in items.iter_mut().enumerate() {
                    self.walk(&path.index(at), item);
                }
            }
            Data::Map(map) => {
                for (key, item) in map.iter_mut() {
                    self.walk(&path.key(&key_text(key)), item);
                }
            }
        }
    }

    /// The value of a text with expressions; one expression alone keeps its type.
    fn scalar(&mut self, path: &Path, text: &str, place: Option<&Place>) -> Option<Value> {
        if self.problems.len() >= MAX_PROBLEMS || self.left == 0 {
            return None;
        }
        let mut rendered = String::new();
        let mut rest = 0..text.len();
        while let Some(start) = text.get(rest.clone()).and_then(|rest| rest.find(OPEN)) {
            let start = rest.start + start;
            let Some(end) = closing(text, start + OPEN.len()) else {
                let help = "write ${{ expression }}; a literal `${{` is ${{ '${{' }}";
                let problem = Problem::error("template::syntax", "`${{` is not closed").help(help);
                let place = place.map(|place| place.inside(text, start..text.len()));
                return self.fail(problem, path, place.as_ref());
            };
            let value = self.expression(path, text, start + OPEN.len()..end, place)?;
            let whole = text.trim().len() == end + 2 - start;
            if whole {
                return Some(value);
            }
            rendered.push_str(text.get(rest.start..start).unwrap_or_default());
            rendered.push_str(&python_text(&value));
            rest.start = end + 2;
        }
        rendered.push_str(text.get(rest).unwrap_or_default());
        Some(Value::String(rendered))
    }

    fn expression(
        &mut self,
        path: &Path,
        text: &str,
        span: Range<usize>,
        place: Option<&Place>,
    ) -> Option<Value> {
        self.left -= 1;
        if self.left == 0 {
            let message = format!("a recipe holds at most {MAX_EXPRESSIONS} expressions");
            return self.fail(Problem::error("template::too_much", message), path, place);
        }
        let source = text.get(span.clone()).unwrap_or_default();
        if code_length(source) > MAX_CODE {
            let message = format!("an expression has at most {MAX_CODE} bytes");
            return self.fail(Problem::error("template::too_much", message), path, place);
        }
        let (problem, part) = match self.evaluate(source) {
            Ok(value) => return Some(value),
            Err(failed) => *failed,
        };
        let part = part.filter(|part| part.end <= source.len() && !part.is_empty());
        let part = part.map_or(span.clone(), |part| span.start + part.start..span.start + part.end);
        self.fail(problem, path, place.map(|place| place.inside(text, part)).as_ref())
    }

    fn evaluate(&self, source: &str) -> Result<Value, Box<Failed>> {
        let compiled = catch(|| self.environment.compile_expression_owned(source.to_owned()));
        let compiled =
            compiled.map_err(|error| Box::new((self.problem(&error, &[]), error.range())))?;
        let names = names_asked_for(self.environment, compiled.undeclared_variables(true));
        if let Some(problem) = self.context.hidden(&names) {
            return Err(Box::new((problem, None)));
        }
        let value = catch(|| compiled.eval(self.context.values()));
        let value =
            value.map_err(|error| Box::new((self.problem(&error, &names), error.range())))?;
        if value.is_undefined() {
            let error = Error::from(ErrorKind::UndefinedError);
            return Err(Box::new((self.problem(&error, &names), None)));
        }
        to_yaml(&value).ok_or_else(|| {
            let message =
                format!("an expression gives {}, which a recipe cannot hold", value.kind());
            Box::new((Problem::error("template::type", message), None))
        })
    }

    fn problem(&self, error: &Error, names: &[String]) -> Problem {
        problem(error, self.context, names)
    }

    fn fail(&mut self, problem: Problem, path: &Path, place: Option<&Place>) -> Option<Value> {
        self.problems.push(problem.about(path.clone()).at(place, "in this expression"));
        None
    }
}

/// What a template asks for and does not define itself, in order: without the engine's own functions.
fn names_asked_for(
    environment: &Environment<'_>,
    undeclared: impl IntoIterator<Item = String>,
) -> Vec<String> {
    let globals: Vec<&str> = environment.globals().map(|(name, _)| name).collect();
    let mut names: Vec<String> = undeclared.into_iter().collect();
    names.retain(|name| !globals.contains(&name.as_str()));
    names.sort_unstable();
    names
}

/// minijinja's error in our words.
fn problem(error: &Error, context: &Context, names: &[String]) -> Problem {
    let detail = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    let unknown = names.iter().find(|name| !context.knows(name));
    // Some operators name what is undefined only in their detail.
    let undefined = unknown.is_some() && detail.contains("undefined");
    match error.kind() {
        ErrorKind::UndefinedError | ErrorKind::InvalidOperation
            if undefined || error.kind() == ErrorKind::UndefinedError =>
        {
            let name =
                unknown.map_or_else(|| "something here".to_owned(), |name| format!("`{name}`"));
            let near = unknown.and_then(|name| did_you_mean(name, context.names()));
            let help = near.unwrap_or_else(|| Context::advice(unknown.map_or("", String::as_str)));
            Problem::error("template::undefined", format!("{name} is not defined")).help(help)
        }
        ErrorKind::SyntaxError => {
            Problem::error("template::syntax", format!("cannot read this expression: {detail}"))
        }
        ErrorKind::OutOfFuel => {
            Problem::error("template::too_much", "this expression computes too much for a recipe")
        }
        kind => Problem::error("template::failed", format!("{kind}: {detail}")),
    }
}

/// Runs minijinja; a panic in it becomes an error, for recipes come from anywhere.
fn catch<T>(run: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| {
        Err(Error::new(ErrorKind::InvalidOperation, "the template engine failed on this"))
    })
}

/// A template value as YAML; none when YAML has nothing like it.
fn to_yaml(value: &Dynamic) -> Option<Value> {
    serde_yaml::to_value(value).ok()
}

/// Where the expression that starts at an offset ends: at `}}` outside of quotes and brackets.
fn closing(text: &str, start: usize) -> Option<usize> {
    let mut depth = 0_usize;
    let mut quote = None;
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(start) {
        if let Some(open) = quote {
            quote = quote.filter(|_| escaped || byte != open);
            escaped = byte == b'\\' && !escaped;
            continue;
        }
        match byte {
            b'\'' | b'"' => quote = Some(byte),
            b'{' | b'[' | b'(' => depth += 1,
            b'}' if depth == 0 && text.as_bytes().get(at + 1) == Some(&b'}') => return Some(at),
            b'}' | b']' | b')' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    None
}
