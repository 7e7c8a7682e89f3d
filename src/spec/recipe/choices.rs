//! Judged sets as recipes write them: rows of multiple choice, answered by likelihood.

use schemars::JsonSchema;
use serde::Deserialize;

/// Rows of multiple choice: the model's answer is the choice that it finds likeliest after the
/// prompt.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Choices {
    /// A JSONL file; each line is a row.
    pub rows: String,
    /// Template of the text before each choice, minijinja over the row's fields.
    pub prompt: String,
    /// The choices: a minijinja expression over the row's fields that gives a list of texts, such
    /// as `endings`.
    pub choices: String,
    /// The right one: an expression that gives its number from 0, one of `labels`, its text, or
    /// its letter from A.
    pub answer: String,
    /// What the rows call the choices: an expression that gives a list as long as that of the
    /// choices. Default: numbers and letters.
    pub labels: Option<String>,
    /// What stands between prompt and choice. Default: one space.
    pub delimiter: Option<String>,
}
