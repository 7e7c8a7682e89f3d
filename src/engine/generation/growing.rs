//! A row's text as its tokens come: what is settled is not decoded again.

use super::predictor::{ModelError, Vocabulary};
use std::ops::Range;

/// Tokens before new ones that are decoded with them, at most: enough for a tokenizer that treats the
/// first token of a text in its own way, and for a character that is spread over several tokens.
pub(super) const TOKENS_BEFORE: usize = 8;

/// A text that grows token by token.
///
/// Tokens are decoded behind the last ones that were settled, not behind all: a text of `n` tokens
/// takes `n` short calls. Where nothing is ever settled, all of it is decoded each time.
#[derive(Clone, Debug, Default)]
pub struct Growing {
    text: String,
    /// The tokens settled last; new ones are decoded behind these.
    context: Range<usize>,
    /// Bytes of the text that these and the tokens before them gave.
    settled: usize,
}

impl Growing {
    /// The text so far.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The text, at the end.
    pub fn into_text(self) -> String {
        self.text
    }

    /// Cuts the text, which then grows no more.
    pub fn truncate(&mut self, bytes: usize) {
        self.text.truncate(bytes);
    }

    /// Makes it the text that `tokens` add after the tokens `before`: those of the calls before, and
    /// any number of new ones.
    pub fn grow(
        &mut self,
        vocabulary: &dyn Vocabulary,
        before: &[u32],
        tokens: &[u32],
    ) -> Result<(), ModelError> {
        let Range { start, end } = self.context;
        let new = &tokens[end..];
        let added = match end {
            0 => vocabulary.text(before, new)?,
            _ => vocabulary.text(&tokens[start..end], new)?,
        };
        self.text.truncate(self.settled);
        self.text.push_str(&added);
        if vocabulary.settles(new, &added) {
            // The next tokens are decoded behind these alone, so these need a text of their own.
            let context = end.max(tokens.len().saturating_sub(TOKENS_BEFORE))..tokens.len();
            let last = &tokens[context.clone()];
            if vocabulary.settles(last, &vocabulary.text(&[], last)?) {
                self.context = context;
                self.settled = self.text.len();
            }
        }
        Ok(())
    }
}
