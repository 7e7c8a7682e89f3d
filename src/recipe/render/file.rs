//! Whole files as templates: `*.yaml.j2`, rendered before anything is read as YAML.

use super::{Context, catch, environment, names_asked_for, problem};
use crate::base::template_size::{MAX_CODE, MAX_TAGS, too_much};
use crate::recipe::place::{Place, SourceFile};
use crate::recipe::problem::Problem;
use crate::recipe::source::MAX_BYTES;
use minijinja::syntax::SyntaxConfig;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::sync::Arc;

/// Steps and data of one file, in minijinja's units.
const FUEL: u64 = 1_000_000;

/// A template and what it came to.
#[derive(Clone, Debug)]
pub(crate) struct Rendered {
    pub(crate) template: Arc<SourceFile>,
    pub(crate) file: Arc<SourceFile>,
    /// The names that the template asks for, such as `vars.lr`.
    pub(crate) used: BTreeSet<String>,
    /// The template's line of each rendered line, both from 1; empty when they cannot be matched.
    lines: Vec<usize>,
}

/// Whether a file is a template by its name.
pub(crate) fn is_template(name: &str) -> bool {
    std::path::Path::new(name).extension().is_some_and(|extension| extension == "j2")
}

/// Renders a file.
pub(crate) fn render_file(
    template: &Arc<SourceFile>,
    context: &Context,
) -> Result<Rendered, Box<Problem>> {
    if let Some(at) = template.text.find(super::OPEN) {
        let place = Place { file: Arc::clone(template), span: at..at + 3 };
        let problem = Problem::error("template::syntax", "`${{` in a file that is all template");
        let help = "write `{{ … }}` here; text for later templates goes between {% raw %} and {% endraw %}";
        return Err(Box::new(problem.at(Some(&place), "without the dollar").help(help)));
    }
    if let Some(span) = too_much(&template.text) {
        let place = Place { file: Arc::clone(template), span };
        let message =
            format!("a template has at most {MAX_TAGS} tags, each of at most {MAX_CODE} bytes");
        return Err(Box::new(
            Problem::error("template::too_much", message)
                .at(Some(&place), "here")
                .help("cut it into files that `extends` each other"),
        ));
    }
    let (text, used) = run(template, &template.text, context)?;
    if text.len() as u64 > MAX_BYTES {
        let message = format!("{} renders to more than {} MiB", template.name, MAX_BYTES >> 20);
        return Err(Box::new(Problem::error("recipe::too_large", message)));
    }
    let marked = mark(&template.text).and_then(|marked| run(template, &marked, context).ok());
    let lines = marked.and_then(|(marked, _)| line_numbers(&text, &marked)).unwrap_or_default();
    let name = format!("{} (rendered)", template.name);
    let file = Arc::new(SourceFile { name, text });
    Ok(Rendered { template: Arc::clone(template), file, used, lines })
}

fn run(
    template: &Arc<SourceFile>,
    source: &str,
    context: &Context,
) -> Result<(String, BTreeSet<String>), Box<Problem>> {
    let mut environment = environment(FUEL);
    let mut syntax = SyntaxConfig::builder();
    syntax.trim_blocks(true).lstrip_blocks(true).keep_trailing_newline(true);
    if let Ok(syntax) = syntax.build() {
        environment.set_syntax(syntax);
    }
    let located = |error: &minijinja::Error, names: &[String]| {
        let place = place(template, error);
        let mut problem = problem(error, context, names);
        problem.help = problem.help.map(Context::advice_for_file);
        Box::new(problem.at(place.as_ref(), "in this template"))
    };
    let compiled = catch(|| environment.template_from_named_str(&template.name, source));
    let compiled = compiled.map_err(|error| located(&error, &[]))?;
    let names = names_asked_for(&environment, compiled.undeclared_variables(true));
    if let Some(hidden) = context.hidden(&names) {
        let whole = Place { file: Arc::clone(template), span: 0..0 };
        return Err(Box::new(hidden.at(Some(&whole), "in this template")));
    }
    let text =
        catch(|| compiled.render(context.values())).map_err(|error| located(&error, &names))?;
    Ok((text, names.into_iter().collect()))
}

fn place(template: &Arc<SourceFile>, error: &minijinja::Error) -> Option<Place> {
    let file = Arc::clone(template);
    if let Some(span) = error.range().filter(|span| template.text.get(span.clone()).is_some()) {
        return Some(Place { file, span });
    }
    Some(Place { span: line_span(&template.text, error.line()?), file })
}

/// The bytes of a line, counted from 1, without its break.
fn line_span(text: &str, number: usize) -> std::ops::Range<usize> {
    let mut start = 0;
    for line in text.split_inclusive('\n').take(number.saturating_sub(1)) {
        start += line.len();
    }
    let line = text.get(start..).unwrap_or_default().lines().next().unwrap_or_default();
    start..start + line.len()
}

const MARK: char = '\u{e000}';
const MARK_END: char = '\u{e001}';

/// The template with the number of each line at its start, where that is plain text. Only the
/// space between words can come out differently with it.
fn mark(template: &str) -> Option<String> {
    if template.contains([MARK, MARK_END]) {
        return None;
    }
    let mut marked = String::new();
    let mut inside: Option<&str> = None;
    for (index, line) in template.split_inclusive('\n').enumerate() {
        if inside.is_none() {
            let _ = write!(marked, "{MARK}{}{MARK_END}", index + 1);
        }
        marked.push_str(line);
        let mut rest = line;
        loop {
            let next = match inside {
                Some(end) => rest.find(end).map(|at| (at, None)),
                None => ["{{", "{%", "{#"]
                    .iter()
                    .zip(["}}", "%}", "#}"])
                    .filter_map(|(open, end)| rest.find(open).map(|at| (at, Some(end))))
                    .min_by_key(|(at, _)| *at),
            };
            let Some((at, state)) = next else { break };
            inside = state;
            rest = rest.get(at + 2..).unwrap_or_default();
        }
    }
    Some(marked)
}

/// The template's line of each line of a rendered text, by the same text with marks: the words of
/// both are the same, one after the other.
fn line_numbers(text: &str, marked: &str) -> Option<Vec<usize>> {
    let mut origins = Vec::new();
    let mut number = 0;
    let mut digits: Option<String> = None;
    for character in marked.chars() {
        match (character, &mut digits) {
            (MARK, _) => digits = Some(String::new()),
            (MARK_END, Some(read)) => {
                number = read.parse().ok()?;
                digits = None;
            }
            (digit, Some(read)) => read.push(digit),
            (word, None) if !word.is_whitespace() => origins.push((word, number)),
            _ => {}
        }
    }
    let mut origins = origins.into_iter();
    let mut lines = Vec::new();
    for line in text.split('\n') {
        let mut first = None;
        for word in line.chars().filter(|word| !word.is_whitespace()) {
            let (same, number) = origins.next()?;
            if same != word {
                return None;
            }
            first = first.or(Some(number));
        }
        lines.push(first.or(lines.last().copied()).unwrap_or(1));
    }
    Some(lines)
}

impl Rendered {
    /// Adds the template's line to a problem in the rendered text.
    pub(crate) fn explain(&self, problem: &mut Problem) {
        let Some((place, _)) = problem.place.as_ref() else { return };
        if *place.file != *self.file
            || problem.related.iter().any(|(at, _)| at.file == self.template)
        {
            return;
        }
        let (row, _) = place.line_and_column();
        let Some(line) = row.checked_sub(1).and_then(|row| self.lines.get(row)) else { return };
        let span = line_span(&self.template.text, *line);
        let place = Place { file: Arc::clone(&self.template), span };
        problem.related.push((place, "made by this line of the template".to_owned()));
    }
}
