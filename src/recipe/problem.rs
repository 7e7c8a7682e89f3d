//! What is wrong with a recipe, in a form that people and programs can read.

use super::path::Path;
use super::place::Place;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The recipe cannot be run.
    Error,
    /// The recipe can be run, but hardly means what it says.
    Lint,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    /// Stable name, such as `recipe::unknown_key`.
    pub code: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, a lowercase fragment.
    pub message: String,
    /// The value it is about.
    pub path: Option<Path>,
    /// Where that stands, with a word for the caret.
    pub place: Option<(Place, String)>,
    /// Further places, each with a word.
    pub related: Vec<(Place, String)>,
    /// What to do.
    pub help: Option<String>,
}
