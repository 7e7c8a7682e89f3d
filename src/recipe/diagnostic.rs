//! Problems as people read them in a terminal, and as JSON.

use super::place::Place;
use super::problem::{Problem, Severity};
use miette::{
    Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, SourceCode,
};
use serde_json::{Value, json};
use std::fmt::{self, Write};

/// At most so many problems are drawn; the rest is counted.
pub const MAX_SHOWN: usize = 20;

/// Problems with their lines and carets, for a terminal of 100 columns.
pub fn render(problems: &[Problem], color: bool) -> String {
    render_width(problems, color, 100)
}

/// The same for a terminal of some width.
pub fn render_width(problems: &[Problem], color: bool, width: usize) -> String {
    let theme = if color { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
    let handler = GraphicalReportHandler::new_themed(theme)
        .with_width(width)
        .with_links(false)
        .with_context_lines(1)
        .with_wrap_lines(true);
    let mut text = String::new();
    for problem in problems.iter().take(MAX_SHOWN) {
        // Writing to a string cannot fail.
        let _ = handler.render_report(&mut text, &Drawn::new(problem));
        text.push('\n');
    }
    let more = problems.len().saturating_sub(MAX_SHOWN);
    if more > 0 {
        let _ = writeln!(text, "  … and {more} more; the first ones may be their cause");
    }
    text
}

/// Problems as a JSON array: `code`, `severity`, `message`, `path`, `file`, `line`, `column`,
/// `label`, `related`, `help`. Codes stay the same between versions.
pub fn json(problems: &[Problem]) -> Value {
    problems.iter().map(one).collect()
}

fn one(problem: &Problem) -> Value {
    let mut object = json!({
        "code": problem.code,
        "severity": match problem.severity { Severity::Error => "error", Severity::Lint => "lint" },
        "message": problem.message,
        "path": problem.path.as_ref().map(ToString::to_string),
        "help": problem.help,
        "related": problem.related.iter().map(|(place, label)| located(place, label)).collect::<Vec<_>>(),
    });
    if let (Some((place, label)), Some(object)) = (&problem.place, object.as_object_mut())
        && let Value::Object(place) = located(place, label)
    {
        object.extend(place);
    }
    object
}

fn located(place: &Place, label: &str) -> Value {
    let (line, column) = place.line_and_column();
    json!({"file": place.file.name, "line": line, "column": column, "label": label})
}

/// How many lines a snippet may reach from its main line; everything between would be drawn.
const NEAR: usize = 6;

impl Problem {
    /// Whether its place is drawn.
    fn is_drawn(&self) -> bool {
        self.place.as_ref().is_some_and(|(place, _)| can_be_drawn(place))
    }

    /// Whether a place is drawn in the snippet of the problem's own; others are told in words.
    fn is_near(&self, place: &Place) -> bool {
        let line = |place: &Place| place.line_and_column().0;
        self.is_drawn()
            && self.place.as_ref().is_some_and(|(main, _)| {
                main.file == place.file && line(main).abs_diff(line(place)) <= NEAR
            })
    }
}

/// A place that is not drawn: where it is, its line, and its label.
fn in_words(place: &Place, label: &str) -> String {
    let (line, column) = place.line_and_column();
    let whole = place.file.text.lines().nth(line - 1).unwrap_or_default();
    let text = if whole.len() <= MAX_LINE {
        whole.trim().to_owned()
    } else {
        let first = column.saturating_sub(AROUND + 1);
        let cut: String = whole.chars().skip(first).take(2 * AROUND).collect();
        format!("…{}…", cut.trim())
    };
    format!("{}:{line}:{column}: `{text}` ({label})", place.file.name)
}

/// The longest line that is drawn, in bytes; longer ones are quoted around the place.
const MAX_LINE: usize = 1_000;
/// Characters that are quoted before and after a place.
const AROUND: usize = 40;

/// Whether all lines that a drawing of this place may show are short enough.
fn can_be_drawn(place: &Place) -> bool {
    let (line, _) = place.line_and_column();
    let lines = place.file.text.lines().skip(line.saturating_sub(NEAR + 2)).take(2 * NEAR + 3);
    let last = place.file.text.get(place.span.clone()).map_or(0, |text| text.lines().count());
    last <= NEAR + 1 && lines.into_iter().all(|line| line.len() <= MAX_LINE)
}

/// A problem in the form that miette draws. Its sources own their text, so each drawing copies it.
struct Drawn<'a> {
    problem: &'a Problem,
    source: Option<NamedSource<String>>,
    help: Option<String>,
}

impl<'a> Drawn<'a> {
    fn new(problem: &'a Problem) -> Drawn<'a> {
        let file = problem.place.as_ref().map(|(place, _)| &place.file);
        let file = file.filter(|_| problem.is_drawn());
        let source = file.map(|file| NamedSource::new(&file.name, file.text.clone()));
        let mut help: Vec<String> = problem.help.iter().cloned().collect();
        let place = problem.place.iter().filter(|_| !problem.is_drawn());
        help.extend(place.map(|(place, label)| in_words(place, label)));
        let elsewhere = problem.related.iter().filter(|(place, _)| !problem.is_near(place));
        help.extend(elsewhere.map(|(place, label)| in_words(place, label)));
        Drawn { problem, source, help: (!help.is_empty()).then(|| help.join("\n")) }
    }

    fn places(&self) -> impl Iterator<Item = &'a (Place, String)> {
        let problem = self.problem;
        let near = problem.related.iter().filter(|(place, _)| problem.is_near(place));
        problem.place.iter().chain(near)
    }
}

impl fmt::Debug for Drawn<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.problem.fmt(formatter)
    }
}

impl fmt::Display for Drawn<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.problem.message)
    }
}

impl std::error::Error for Drawn<'_> {}

impl Diagnostic for Drawn<'_> {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(self.problem.code))
    }

    fn severity(&self) -> Option<miette::Severity> {
        Some(match self.problem.severity {
            Severity::Error => miette::Severity::Error,
            Severity::Lint => miette::Severity::Warning,
        })
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.source.as_ref().map(|source| source as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let mut first = true;
        Some(Box::new(self.places().map(move |(place, label)| {
            let span = (place.span.start, place.span.len());
            let primary = std::mem::replace(&mut first, false);
            if primary {
                LabeledSpan::new_primary_with_span(Some(label.clone()), span)
            } else {
                LabeledSpan::new_with_span(Some(label.clone()), span)
            }
        })))
    }
}
