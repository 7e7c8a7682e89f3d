//! Hugging Face chat templates: a conversation to text, and the parts of it that are answers.
//!
//! Source: Transformers, `utils/chat_template_utils.py` (the environment) and the documentation of
//! chat templates. Rendering is the same on every day: `strftime_now` exists only where the recipe
//! says which day it is, so that a template takes the way it has for readers without a clock.

use super::conversation::{self, Turn};
use super::python;
use crate::base::chat_markup::with_filters;
use crate::base::template_size::{MAX_CODE, MAX_TAGS, too_much};
use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Error as Failure, ErrorKind, Value};
use serde_json::json;
use std::collections::BTreeMap;
use std::ops::Range;

/// The only template of an environment. The name has no extension, so nothing is escaped.
const NAME: &str = "chat_template";
/// Around an answer while a template renders: characters that Unicode keeps out of all texts.
const OPEN: char = '\u{FDD0}';
const CLOSE: char = '\u{FDD1}';
/// What is said in a conversation whose text shows where turns end: characters of private use.
const ASKED: char = '\u{E000}';
const SAID: char = '\u{E001}';
/// Steps of a template for one row, in minijinja's units.
const FUEL: u64 = 20_000_000;
/// The function that gives the day.
const CLOCK: &str = "strftime_now";

/// Why a chat template cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It does not parse.
    #[error("the chat template cannot be read: {0}")]
    Syntax(String),
    /// It is too long for the engine.
    #[error(
        "the chat template has more than {MAX_TAGS} tags, or one of more than {MAX_CODE} bytes"
    )]
    TooMuch,
    /// The day is none.
    #[error("`date` {0} is no day: write it as 2024-07-26")]
    Date(String),
}

/// A parsed chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    /// Names that every rendering sees: the special tokens.
    names: BTreeMap<String, Value>,
    /// Whether the template says itself which parts are answers (`{% generation %}`).
    marks_answers: bool,
}

/// A rendered conversation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rendered {
    /// The whole text.
    pub text: String,
    /// Where the answers stand in it, in bytes, in order.
    pub answers: Vec<Range<usize>>,
    /// What the last answer says, as the row has it.
    pub last_answer: String,
}

impl ChatTemplate {
    /// Parses a template. `special` are names such as `bos_token` with their texts; `date` is the
    /// day of `strftime_now`, as `2024-07-26`.
    pub fn parse(
        source: &str,
        special: &[(&str, String)],
        date: Option<&str>,
    ) -> Result<ChatTemplate, Error> {
        let fail = |error: Failure| Error::Syntax(reason(&error));
        if too_much(source).is_some() {
            return Err(Error::TooMuch);
        }
        let mut environment = environment().map_err(fail)?;
        if let Some(date) = date {
            let day: jiff::civil::Date = date.parse().map_err(|_| Error::Date(date.to_owned()))?;
            environment.add_function(CLOCK, move |format: String| day_text(day, &format));
        }
        let (source, marks_answers) = with_filters(source);
        environment.add_template_owned(NAME, source).map_err(fail)?;
        let names = special.iter().map(|(name, text)| ((*name).to_owned(), text.into()));
        Ok(ChatTemplate { environment, names: names.collect(), marks_answers })
    }

    /// The text of the conversation in the field `messages` of a row, a JSON object; else what is
    /// wrong with it.
    ///
    /// Answers are what the template puts into `{% generation %}`; of a template without it, what
    /// each assistant's turn adds to the text that ends with the prompt for it.
    pub fn render(&self, row: &str, messages: &str) -> Result<Rendered, String> {
        let row = conversation::Row::parse(row, messages)?;
        let row = &row;
        let last_answer = row.turns.iter().rev().find(|turn| turn.is_answer());
        let last_answer = last_answer.map(Turn::text).unwrap_or_default();
        let marked = self.text(row, row.turns.len(), false)?;
        let (text, answers) = if self.marks_answers {
            unmarked(&marked)
        } else {
            let answers = self.answers(row, &marked)?;
            (marked, answers)
        };
        Ok(Rendered { text, answers, last_answer })
    }

    /// The text of a conversation that the assistant is to continue; else what is wrong with it.
    pub fn prompt(&self, row: &str, messages: &str) -> Result<String, String> {
        let row = conversation::Row::parse(row, messages)?;
        Ok(unmarked(&self.text(&row, row.turns.len(), true)?).0)
    }

    /// The text that shows that the assistant's turn is over, where the template writes any: the
    /// first line after what the assistant says, or, when there is only white space, what stands
    /// between that and the user's next words.
    pub fn turn_end(&self) -> Option<String> {
        let turn = |role: &str, content: char| json!({"role": role, "content": content});
        let turns = [turn("user", ASKED), turn("assistant", SAID), turn("user", ASKED)];
        let row = json!({ "messages": turns }).to_string();
        let row = conversation::Row::parse(&row, "messages").ok()?;
        let after = |turns: usize| -> Option<String> {
            let text = unmarked(&self.text(&row, turns, false).ok()?).0;
            Some(text.rsplit_once(SAID)?.1.to_owned())
        };
        let end = after(2)?.trim().lines().next().unwrap_or_default().to_owned();
        if !end.is_empty() {
            return Some(end);
        }
        let next = after(3)?;
        let next = next.split_once(ASKED)?.0.trim_end();
        Some(next.to_owned()).filter(|next| !next.is_empty())
    }

    /// The first `count` turns as text.
    fn text(
        &self,
        row: &conversation::Row,
        count: usize,
        add_generation_prompt: bool,
    ) -> Result<String, String> {
        let turns: Vec<Value> = row.turns[..count].iter().map(|turn| turn.value.clone()).collect();
        let mut names = self.names.clone();
        names.insert("messages".to_owned(), Value::from(turns));
        names.insert("tools".to_owned(), row.tools.clone());
        names.insert("documents".to_owned(), row.documents.clone());
        names.insert("add_generation_prompt".to_owned(), Value::from(add_generation_prompt));
        let render = || self.environment.get_template(NAME)?.render(Value::from(names));
        render()
            .map_err(|error: Failure| format!("the chat template refuses it: {}", reason(&error)))
    }

    /// What each assistant's turn adds to the whole text.
    fn answers(&self, row: &conversation::Row, whole: &str) -> Result<Vec<Range<usize>>, String> {
        let mut answers = Vec::new();
        for (at, _) in row.turns.iter().enumerate().filter(|(_, turn)| turn.is_answer()) {
            // A part of a conversation that the template refuses tells as little as a changed one.
            let [before, after] = [self.text(row, at, true), self.text(row, at + 1, false)]
                .map(Result::unwrap_or_default);
            if after.is_empty() || !(after.starts_with(&before) && whole.starts_with(&after)) {
                let turn = at + 1;
                return Err(format!(
                    "the chat template writes what stands before message {turn} differently when \
                     more follows, or not at all, so its answer cannot be told from the rest: put \
                     {{% generation %}} and {{% endgeneration %}} around answers in the template"
                ));
            }
            answers.push(before.len()..after.len());
        }
        Ok(answers)
    }
}

/// The environment of Transformers: Jinja's defaults, blocks without their line breaks, Python's
/// methods and spelling.
fn environment() -> Result<Environment<'static>, Failure> {
    let mut environment = Environment::new();
    let mut syntax = SyntaxConfig::builder();
    syntax.trim_blocks(true).lstrip_blocks(true);
    environment.set_syntax(syntax.build()?);
    environment.set_fuel(Some(FUEL));
    environment.set_formatter(python::print);
    environment.set_unknown_method_callback(python::method);
    environment.add_filter("tojson", python::to_json);
    environment.add_filter("generation", |answer: String| format!("{OPEN}{answer}{CLOSE}"));
    environment.add_function("raise_exception", |reason: String| -> Result<String, Failure> {
        Err(Failure::new(ErrorKind::InvalidOperation, reason))
    });
    Ok(environment)
}

fn day_text(day: jiff::civil::Date, format: &str) -> Result<String, Failure> {
    let midnight = day.to_datetime(jiff::civil::Time::midnight());
    jiff::fmt::strtime::format(format, midnight)
        .map_err(|error| Failure::new(ErrorKind::InvalidOperation, error.to_string()))
}

/// A text without the marks around answers, and where the answers stand.
fn unmarked(marked: &str) -> (String, Vec<Range<usize>>) {
    let mut text = String::with_capacity(marked.len());
    let mut answers = Vec::new();
    let mut start = 0;
    for character in marked.chars() {
        match character {
            OPEN => start = text.len(),
            CLOSE => answers.push(start..text.len()),
            _ => text.push(character),
        }
    }
    (text, answers)
}

/// An error in the template's own words, with the line.
fn reason(error: &Failure) -> String {
    let told = error.detail().map_or_else(|| error.to_string(), str::to_owned);
    let clock = error.kind() == ErrorKind::UnknownFunction && told.contains(CLOCK);
    let help = if clock { "; it asks for today's date: give the task a `date`" } else { "" };
    match error.line() {
        Some(line) => format!("{told} (line {line} of the template){help}"),
        None => format!("{told}{help}"),
    }
}

/// Whether a text has the characters that mark answers.
pub(super) fn is_marked(text: &str) -> bool {
    text.contains([OPEN, CLOSE])
}
