//! Sentiment by a list of words with a valence each.
//!
//! The score of a text with valences summing to `s` is `s / sqrt(s² + 15)`, between -1 and 1
//! (Hutto and Gilbert 2014, "VADER", the normalization of `vaderSentiment.py`); the rules for
//! negation, boosters and emphasis are left out. Words are lower-cased and stripped of ASCII
//! punctuation at both ends, unless the list has them as they stand (`:)`).

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// Why a list cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error("cannot read the lexicon `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line is not an entry.
    #[error(
        "`{}` line {line} is no entry of a lexicon: write a word, a tab and its valence as a number",
        path.display()
    )]
    Line {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
    },
    /// It has no entry.
    #[error("the lexicon `{}` is empty", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

/// Words and their valences.
#[derive(Clone, Debug)]
pub struct Lexicon(BTreeMap<String, f64>);

impl Lexicon {
    /// Reads a file of lines `word TAB valence`; what follows a further tab is ignored, so that
    /// VADER's own file can be used.
    pub fn read(path: &Path) -> Result<Lexicon, Error> {
        let text = std::fs::read_to_string(path);
        let text = text.map_err(|source| Error::Read { path: path.to_owned(), source })?;
        let mut words = BTreeMap::new();
        for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let mut parts = line.split('\t');
            let entry = parts.next().zip(parts.next().and_then(|valence| valence.parse().ok()));
            let finite = entry.filter(|(_, valence): &(&str, f64)| valence.is_finite());
            let wrong = || Error::Line { path: path.to_owned(), line: index + 1 };
            let (word, valence) = finite.ok_or_else(wrong)?;
            words.insert(word.to_lowercase(), valence);
        }
        if words.is_empty() {
            return Err(Error::Empty { path: path.to_owned() });
        }
        Ok(Lexicon(words))
    }

    /// The score of a text, between -1 and 1; 0 when it has no word of the list.
    pub fn score(&self, text: &str) -> f64 {
        let lower = text.to_lowercase();
        let valence = |word: &str| {
            let bare = word.trim_matches(|letter: char| letter.is_ascii_punctuation());
            self.0.get(word).or_else(|| self.0.get(bare)).copied()
        };
        let sum: f64 = lower.split_whitespace().filter_map(valence).sum();
        sum / (sum * sum + 15.0).sqrt()
    }
}
