//! Text from ids as they are generated: only what later ids cannot change is given out.

use super::{Error, Tokenizer};

/// What an incomplete character decodes to.
const REPLACEMENT: char = '\u{FFFD}';

/// Decodes ids one by one. The pieces together are the text of all ids at once.
#[derive(Debug)]
pub struct TextStream<'a> {
    tokenizer: &'a Tokenizer,
    ids: Vec<u32>,
    /// Bytes of text given out.
    given: usize,
}

impl<'a> TextStream<'a> {
    pub(super) fn new(tokenizer: &'a Tokenizer) -> TextStream<'a> {
        TextStream { tokenizer, ids: Vec::new(), given: 0 }
    }

    /// Takes the next id and returns the text that is now certain, which may be empty.
    ///
    /// Decoding the whole again each time costs little beside a model's step, and is exact for
    /// tokenizers whose first piece is treated differently.
    pub fn push(&mut self, id: u32) -> Result<String, Error> {
        self.ids.push(id);
        let text = self.tokenizer.decode(&self.ids)?;
        // A character may be spread over several ids; its first bytes alone are no character.
        let certain = text.trim_end_matches(REPLACEMENT);
        Ok(self.give(certain))
    }

    /// The rest, with U+FFFD for what never became a character.
    pub fn finish(mut self) -> Result<String, Error> {
        let text = self.tokenizer.decode(&self.ids)?;
        Ok(self.give(&text))
    }

    fn give(&mut self, text: &str) -> String {
        let new = text.get(self.given..).unwrap_or_default().to_owned();
        self.given += new.len();
        new
    }
}
