//! What the grammars of interpolations and of overrides have in common: a place in a text that moves
//! forward, unquoted words, and what stands between brackets.

use super::literal::ESCAPABLE;

/// A text and how far it has been read, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cursor<'t> {
    pub(crate) text: &'t str,
    pub(crate) at: usize,
}

impl<'t> Cursor<'t> {
    pub(crate) fn new(text: &'t str) -> Cursor<'t> {
        Cursor { text, at: 0 }
    }

    /// What has not been read.
    pub(crate) fn rest(&self) -> &'t str {
        self.text.get(self.at..).unwrap_or_default()
    }

    pub(crate) fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    /// The character that a backslash right here takes the meaning from.
    fn escaped(&self) -> Option<char> {
        let rest = self.rest().strip_prefix('\\')?;
        rest.chars().next().filter(|next| ESCAPABLE.contains(*next))
    }

    pub(crate) fn next(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.at += next.len_utf8();
        Some(next)
    }

    /// Reads one character if it is the wanted one.
    pub(crate) fn eat(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.at += wanted.len_utf8();
        }
        found
    }

    /// Reads spaces and tabs.
    pub(crate) fn space(&mut self) {
        self.take_while(|c| c == ' ' || c == '\t');
    }

    pub(crate) fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> &'t str {
        let start = self.at;
        let rest = self.rest();
        let length = rest.find(|c| !wanted(c)).unwrap_or(rest.len());
        self.at += length;
        self.text.get(start..self.at).unwrap_or_default()
    }
}

/// Unquoted text as it is collected.
#[derive(Debug, Default)]
pub(crate) struct Word {
    pub(crate) text: String,
    /// Space that belongs to the text only if more follows.
    pub(crate) space: String,
    /// An escape or an interpolation in it makes it a text whatever it looks like.
    pub(crate) untyped: bool,
}

impl Word {
    /// Takes the next character: an escape, a space, or one that is plain; false for another.
    pub(crate) fn take(&mut self, cursor: &mut Cursor, plain: bool) -> bool {
        let Some(next) = cursor.peek() else { return false };
        if let Some(escaped) = cursor.escaped() {
            cursor.next();
            self.push(escaped.encode_utf8(&mut [0; 4]));
            self.untyped = true;
        } else if next == ' ' || next == '\t' {
            self.space.push(next);
        } else if plain {
            self.push(next.encode_utf8(&mut [0; 4]));
        } else {
            return false;
        }
        cursor.next();
        true
    }

    pub(crate) fn push(&mut self, text: &str) {
        self.text.push_str(&std::mem::take(&mut self.space));
        self.text.push_str(text);
    }
}

/// A parser that reads lists, mappings and arguments.
pub(crate) trait Bracketed<'t> {
    type Error;

    fn cursor(&mut self) -> &mut Cursor<'t>;

    /// Reads `wanted`, or tells what stands there.
    fn expect(&mut self, wanted: char) -> Result<(), Self::Error>;

    /// Reads items with commas between them, and the bracket that closes them.
    fn items<T>(
        &mut self,
        close: char,
        mut item: impl FnMut(&mut Self) -> Result<T, Self::Error>,
    ) -> Result<Vec<T>, Self::Error> {
        let mut items = Vec::new();
        self.cursor().space();
        if self.cursor().eat(close) {
            return Ok(items);
        }
        loop {
            self.cursor().space();
            items.push(item(self)?);
            self.cursor().space();
            if self.cursor().eat(close) {
                return Ok(items);
            }
            self.expect(',')?;
        }
    }
}
