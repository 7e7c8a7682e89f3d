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

impl Problem {
    /// An error with nothing but its code and message; the methods below add the rest.
    pub fn error(code: &'static str, message: impl Into<String>) -> Problem {
        Problem {
            code,
            severity: Severity::Error,
            message: message.into(),
            path: None,
            place: None,
            related: Vec::new(),
            help: None,
        }
    }

    /// The same problem with the value it is about.
    #[must_use]
    pub fn about(mut self, path: Path) -> Problem {
        self.path = Some(path);
        self
    }

    /// The same problem with its place, when that is known, and the word for the caret.
    #[must_use]
    pub fn at(mut self, place: Option<&Place>, label: impl Into<String>) -> Problem {
        self.place = place.map(|place| (place.clone(), label.into()));
        self
    }

    /// The same problem with one more place.
    #[must_use]
    pub fn with(mut self, place: Option<&Place>, label: impl Into<String>) -> Problem {
        self.related.extend(place.map(|place| (place.clone(), label.into())));
        self
    }

    /// The same problem with advice.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Problem {
        self.help = Some(help.into());
        self
    }

    /// The same problem with advice when there is any.
    #[must_use]
    pub fn help_if(mut self, help: Option<String>) -> Problem {
        self.help = help.or(self.help);
        self
    }
}

/// Puts problems in the order of their places; those without one come first.
pub fn sort(problems: &mut [Problem]) {
    problems.sort_by_cached_key(|problem| {
        let place = problem.place.as_ref();
        place.map(|(place, _)| (place.file.name.clone(), place.span.start))
    });
}
