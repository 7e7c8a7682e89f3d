//! Multiple choice: how rows become prompts, choices and the number of the right one.

use serde::{Deserialize, Serialize};

/// How rows are read; the file is input `choices`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChoiceSet {
    /// Template of the text before each choice.
    pub prompt: String,
    /// Expression that gives the choices, a list of texts.
    pub choices: String,
    /// Expression that gives the right one: its number from 0, its label, its text or its letter.
    pub answer: String,
    /// Expression that gives the choices' labels; none where they have none.
    pub labels: Option<String>,
    /// What stands between prompt and choice.
    pub delimiter: String,
}
