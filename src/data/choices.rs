//! Rows of multiple choice: prompt, choices, and which of them is right.

use super::rows::{self, Fields, Row, for_each_row};
use super::template::{self, RowExpression, Template};
use crate::base::digest::Digest;
use crate::spec::choices::ChoiceSet;
use serde_json::Value;
use std::path::Path;

/// Why rows cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A template or an expression does not parse.
    #[error("`choices`: {0}")]
    Template(#[from] template::Error),
    /// The file, or some of its rows.
    #[error(transparent)]
    Rows(#[from] rows::Error),
    /// There are none.
    #[error("`{0}` has no rows of multiple choice")]
    Nothing(String),
}

/// A question with its choices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChoiceRow {
    /// What stands before each choice, and before the delimiter.
    pub prompt: String,
    /// The choices' texts; at least two.
    pub choices: Vec<String>,
    /// The number of the right one, from 0.
    pub answer: usize,
}

/// The rows of the file at `path`, at most `limit` of them: those with the smallest hashes, so that
/// the choice depends on the rows and not on where they stand; without a limit, in the file's order.
pub fn read(path: &Path, set: &ChoiceSet, limit: Option<usize>) -> Result<Vec<ChoiceRow>, Error> {
    let mut rows = gather(path, set, true)?;
    if let Some(limit) = limit {
        rows.sort_by_cached_key(|row| {
            let parts: Vec<&str> = [row.prompt.as_str()]
                .into_iter()
                .chain(row.choices.iter().map(String::as_str))
                .collect();
            Digest::of_bytes(parts.join("\0").as_bytes())
        });
        rows.truncate(limit);
    }
    Ok(rows)
}

/// Reads the first rows of the file only, to find out whether `set` fits them.
pub fn look(path: &Path, set: &ChoiceSet) -> Result<(), Error> {
    gather(path, set, false).map(|_| ())
}

/// The rows of the file, all of them or those that are read first; there are some.
fn gather(path: &Path, set: &ChoiceSet, all: bool) -> Result<Vec<ChoiceRow>, Error> {
    let reader = Reader::new(set)?;
    let mut rows: Vec<ChoiceRow> = Vec::new();
    for_each_row(path, &|row: &Row<'_>| reader.row(&row.fields), |some| {
        rows.extend(some);
        all
    })?;
    if rows.is_empty() {
        return Err(Error::Nothing(path.display().to_string()));
    }
    Ok(rows)
}

/// Templates and expressions that are parsed.
struct Reader {
    prompt: Template,
    choices: RowExpression,
    answer: RowExpression,
    labels: Option<RowExpression>,
}

impl Reader {
    fn new(set: &ChoiceSet) -> Result<Reader, template::Error> {
        let labels = set.labels.as_ref().map(|labels| RowExpression::parse("labels", labels));
        Ok(Reader {
            prompt: Template::parse("prompt", &set.prompt)?,
            choices: RowExpression::parse("choices", &set.choices)?,
            answer: RowExpression::parse("answer", &set.answer)?,
            labels: labels.transpose()?,
        })
    }

    fn row(&self, fields: &Fields) -> Result<ChoiceRow, String> {
        let prompt = self.prompt.render(fields)?;
        let choices = texts("choices", &self.choices.value(fields)?)?;
        if choices.len() < 2 || choices.iter().any(String::is_empty) {
            return Err(format!("`choices` are {choices:?}: at least two texts are needed"));
        }
        let answer = self.answer.value(fields)?;
        let labels = self.labels.as_ref().map(|labels| labels.value(fields)).transpose()?;
        let labels = labels.map(|labels| texts("labels", &labels)).transpose()?;
        if labels.as_ref().is_some_and(|labels| labels.len() != choices.len()) {
            return Err("there are not as many `labels` as `choices`".to_owned());
        }
        let number = number_of(&answer, &choices, labels.as_deref());
        let answer = number.filter(|number| *number < choices.len()).ok_or_else(|| {
            let known = labels.as_ref().unwrap_or(&choices);
            format!(
                "`answer` is {answer}, which is none of the {} choices {known:?}",
                choices.len()
            )
        })?;
        Ok(ChoiceRow { prompt, choices, answer })
    }
}

/// A list of texts; numbers and truth values are spelled as JSON has them.
fn texts(key: &str, value: &Value) -> Result<Vec<String>, String> {
    let items = value.as_array().ok_or_else(|| format!("`{key}` is {value}, which is no list"))?;
    let text = |item: &Value| match item {
        Value::String(text) => Ok(text.clone()),
        Value::Number(_) | Value::Bool(_) => Ok(item.to_string()),
        other => Err(format!("`{key}` holds {other}, which is no text")),
    };
    items.iter().map(text).collect()
}

/// The choice that `answer` names: by its label where there are labels, else by its number, its
/// text, its letter from A, or its number as a text.
fn number_of(answer: &Value, choices: &[String], labels: Option<&[String]>) -> Option<usize> {
    let said = answer.as_str().map_or_else(|| answer.to_string(), str::to_owned);
    if let Some(labels) = labels {
        return labels.iter().position(|label| *label == said);
    }
    if let Some(number) = answer.as_u64() {
        return usize::try_from(number).ok();
    }
    let letter = || match said.as_bytes() {
        [letter @ b'A'..=b'Z'] => Some(usize::from(letter - b'A')),
        _ => said.parse().ok(),
    };
    choices.iter().position(|choice| *choice == said).or_else(letter)
}
