//! Normalization before segmentation (google/sentencepiece, `normalizer.cc`).

use super::charsmap::CharsMap;
use super::proto_model::NormalizerSpec;
use super::trie::Trie;

/// What stands for a space in pieces.
pub(super) const SPACE: &str = "\u{2581}";

/// Where a text stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// At the start, where the dummy prefix goes and spaces are dropped.
    Start,
    /// After other text.
    Middle,
}

/// A model's normalization.
#[derive(Debug)]
pub(super) struct Normalizer {
    spec: NormalizerSpec,
    charsmap: CharsMap,
    space_is_suffix: bool,
}

impl Normalizer {
    pub(super) fn new(
        spec: NormalizerSpec,
        treat_whitespace_as_suffix: bool,
    ) -> Result<Normalizer, String> {
        let charsmap = CharsMap::parse(&spec.charsmap)?;
        Ok(Normalizer { spec, charsmap, space_is_suffix: treat_whitespace_as_suffix })
    }

    /// The normalized form of `text`, in which spaces are [`SPACE`] if the model escapes them.
    ///
    /// Texts in `fixed` stay as they are.
    pub(super) fn normalize(&self, text: &str, fixed: &Trie, place: Place) -> String {
        let space = if self.spec.escape_whitespaces { SPACE } else { " " };
        let at_start = place == Place::Start;
        let mut rest = text;
        if self.spec.remove_extra_whitespaces && at_start {
            while let (" ", length) = self.step(rest, fixed) {
                rest = &rest[length..];
            }
        }
        if rest.is_empty() {
            return String::new();
        }
        let mut normalized = String::with_capacity(text.len() + text.len() / 2);
        let dummy = self.spec.add_dummy_prefix && at_start;
        if dummy && !self.space_is_suffix {
            normalized.push_str(space);
        }
        let mut after_space = self.spec.remove_extra_whitespaces && at_start;
        while !rest.is_empty() {
            let (mut piece, length) = self.step(rest, fixed);
            while after_space && piece.starts_with(' ') {
                piece = &piece[1..];
            }
            if !piece.is_empty() {
                normalized.push_str(&piece.replace(' ', space));
                after_space = piece.ends_with(' ') && self.spec.remove_extra_whitespaces;
            }
            rest = &rest[length..];
        }
        if self.spec.remove_extra_whitespaces {
            normalized.truncate(normalized.trim_end_matches(space).len());
        }
        if dummy && self.space_is_suffix {
            normalized.push_str(space);
        }
        normalized
    }

    /// What the beginning of `rest` becomes, and how many bytes that takes.
    fn step<'a>(&'a self, rest: &'a str, fixed: &Trie) -> (&'a str, usize) {
        if let Some((length, _)) = fixed.longest(rest.as_bytes()) {
            return (&rest[..length], length);
        }
        match self.charsmap.longest(rest.as_bytes()) {
            // A rule of a broken model may end inside a character: such a rule is none.
            Some((length, replacement)) if rest.is_char_boundary(length) => (replacement, length),
            _ => {
                let length = rest.chars().next().map_or(0, char::len_utf8);
                (&rest[..length], length)
            }
        }
    }
}
