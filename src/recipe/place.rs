//! Where a value was written: a span of a file, an override, or nowhere.

use super::path::Path;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// A text that values came from: a recipe file, or the arguments of the command line.
#[derive(Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// The name shown to people: the path as it was given.
    pub name: String,
    /// The whole text.
    pub text: String,
}

/// A span of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The text.
    pub file: Arc<SourceFile>,
    /// Byte offsets into it.
    pub span: Range<usize>,
}

impl Place {
    /// Line and column of the start, both from 1; columns count characters.
    pub fn line_and_column(&self) -> (usize, usize) {
        let before = self.file.text.get(..self.span.start).unwrap_or(&self.file.text);
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        (line, column)
    }
}

impl Place {
    /// The part of this place that a part of its value came from: exact where the value stands in
    /// the text letter by letter, else the whole place.
    #[must_use]
    pub fn inside(&self, value: &str, part: Range<usize>) -> Place {
        let text = self.file.text.get(self.span.clone()).unwrap_or_default();
        match text.find(value) {
            Some(at) if !part.is_empty() && part.end <= value.len() => {
                let start = self.span.start + at;
                Place { file: Arc::clone(&self.file), span: start + part.start..start + part.end }
            }
            _ => self.clone(),
        }
    }
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A recipe file.
    File(Place),
    /// The command line's override of this number, counted from 1; the place is in its text.
    Override(usize, Place),
    /// Nobody wrote it.
    Default,
}

impl Origin {
    /// The place, when somebody wrote the value.
    pub fn place(&self) -> Option<&Place> {
        match self {
            Origin::File(place) | Origin::Override(_, place) => Some(place),
            Origin::Default => None,
        }
    }
}

/// The places of one value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marks {
    /// The key, when the value stands in a mapping.
    pub key: Option<Place>,
    /// The value.
    pub value: Origin,
}

/// The places of all values of a recipe by path.
pub type SourceMap = BTreeMap<Path, Marks>;
