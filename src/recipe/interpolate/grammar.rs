//! OmegaConf's interpolation grammar: a text with `${…}` in it to its parts.

use crate::recipe::cursor::{Bracketed, Cursor, Word};
use crate::recipe::literal::{self, UNQUOTED};
use serde_yaml::Value;
use std::ops::Range;

/// The deepest nesting of interpolations, lists and mappings in one text.
const MAX_DEPTH: usize = 24;

/// A piece of a text.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Part {
    Text(String),
    Interpolation(Interpolation),
}

/// `${…}` with its place in the text.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Interpolation {
    pub(crate) span: Range<usize>,
    pub(crate) kind: Kind,
}

/// What stands between the braces.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Kind {
    /// `a.b` (no dots in front), or `.a` for a sibling, `..a` for one up, and so on.
    Node { dots: usize, keys: Vec<Key> },
    /// `name:argument,argument`.
    Resolver { name: String, arguments: Vec<Element> },
}

/// One key of a path; a nested one gives its text when it is evaluated.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Key {
    Name(String),
    Nested(Box<Interpolation>),
}

/// An argument of a resolver.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Element {
    Literal(Value),
    /// Parts put together as one text.
    Text(Vec<Part>),
    /// One interpolation alone keeps its type.
    Interpolation(Interpolation),
    List(Vec<Element>),
    Map(Vec<(Value, Element)>),
}

/// What is wrong with a text, and where in it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SyntaxError {
    pub(crate) at: usize,
    pub(crate) message: String,
}

type Result<T> = std::result::Result<T, SyntaxError>;

/// Reads a whole text.
pub(crate) fn parts(text: &str) -> Result<Vec<Part>> {
    let mut parser = Parser { cursor: Cursor::new(text), depth: 0 };
    parser.text_until(None)
}

/// Reads a text as one argument, as `oc.decode` does.
pub(crate) fn element(text: &str) -> Result<Element> {
    let mut parser = Parser { cursor: Cursor::new(text), depth: 0 };
    parser.cursor.space();
    let element = parser.element()?;
    parser.cursor.space();
    match parser.cursor.peek() {
        None => Ok(element),
        Some(found) => Err(parser.unexpected(found)),
    }
}

struct Parser<'t> {
    cursor: Cursor<'t>,
    depth: usize,
}

impl<'t> Bracketed<'t> for Parser<'t> {
    type Error = SyntaxError;

    fn cursor(&mut self) -> &mut Cursor<'t> {
        &mut self.cursor
    }

    fn expect(&mut self, wanted: char) -> Result<()> {
        match self.cursor.peek() {
            Some(found) if found == wanted => {
                self.cursor.next();
                Ok(())
            }
            Some(found) => Err(self.unexpected(found)),
            None => Err(self.error(&format!("`{wanted}` is missing"))),
        }
    }
}

impl Parser<'_> {
    /// Text and interpolations up to a closing quote, or to the end.
    fn text_until(&mut self, quote: Option<char>) -> Result<Vec<Part>> {
        let mut parts = Vec::new();
        let mut text = String::new();
        loop {
            let backslashes = self.cursor.take_while(|c| c == '\\').len();
            let opens = self.cursor.rest().starts_with("${");
            let closes = quote.is_some_and(|quote| self.cursor.rest().starts_with(quote));
            if !opens && !closes {
                // Backslashes mean something only before what they could escape.
                text.extend(std::iter::repeat_n('\\', backslashes));
                match self.cursor.next() {
                    Some(character) => text.push(character),
                    None if quote.is_some() => return Err(self.error("a quote is not closed")),
                    None => break,
                }
                continue;
            }
            text.extend(std::iter::repeat_n('\\', backslashes / 2));
            if backslashes % 2 == 1 {
                text.extend(self.cursor.next());
            } else if closes {
                self.cursor.next();
                break;
            } else {
                push_text(&mut parts, &mut text);
                parts.push(Part::Interpolation(self.interpolation()?));
            }
        }
        push_text(&mut parts, &mut text);
        Ok(parts)
    }

    /// `${…}`, from its dollar on.
    fn interpolation(&mut self) -> Result<Interpolation> {
        self.deeper(|parser| {
            let start = parser.cursor.at;
            parser.cursor.at += 2;
            if parser.cursor.peek() == Some('{') {
                return Err(SyntaxError {
                    at: start,
                    message: "`${{ … }}` is evaluated only in recipe files, before overrides and interpolations"
                        .to_owned(),
                });
            }
            parser.cursor.space();
            let kind = parser.kind()?;
            Ok(Interpolation { span: start..parser.cursor.at, kind })
        })
    }

    fn kind(&mut self) -> Result<Kind> {
        let dots = self.cursor.take_while(|c| c == '.').len();
        let mut keys = Vec::new();
        let mut dotted = true;
        loop {
            keys.push(if self.cursor.eat('[') {
                dotted = false;
                let key = self.key()?;
                self.expect(']')?;
                key
            } else {
                self.key()?
            });
            let before = self.cursor.at;
            self.cursor.space();
            match self.cursor.peek() {
                Some('}') => {
                    self.cursor.next();
                    return Ok(Kind::Node { dots, keys });
                }
                Some(':') if dots == 0 && dotted => {
                    self.cursor.next();
                    let name = self.resolver_name(&keys)?;
                    return Ok(Kind::Resolver { name, arguments: self.arguments()? });
                }
                Some('.') if before == self.cursor.at => {
                    self.cursor.next();
                }
                Some('[') if before == self.cursor.at => {}
                Some(found) => return Err(self.unexpected(found)),
                None => return Err(self.error("`${` is not closed")),
            }
        }
    }

    fn key(&mut self) -> Result<Key> {
        if self.cursor.rest().starts_with("${") {
            return Ok(Key::Nested(Box::new(self.interpolation()?)));
        }
        let name = self.cursor.take_while(|c| !"\\{}()[]:. \t'\"\n".contains(c)).to_owned();
        match (name.is_empty(), self.cursor.peek()) {
            (false, _) => Ok(Key::Name(name)),
            (true, Some(found)) => Err(self.unexpected(found)),
            (true, None) => Err(self.error("`${` is not closed")),
        }
    }

    fn resolver_name(&self, keys: &[Key]) -> Result<String> {
        let mut names = Vec::new();
        for key in keys {
            match key {
                Key::Name(name) => names.push(name.as_str()),
                Key::Nested(_) => {
                    return Err(self.error("the name of a resolver must be written out"));
                }
            }
        }
        Ok(names.join("."))
    }

    /// Arguments and the closing brace; a missing one is the empty text.
    fn arguments(&mut self) -> Result<Vec<Element>> {
        self.items('}', |parser| parser.argument('}'))
    }

    fn argument(&mut self, close: char) -> Result<Element> {
        let missing = self.cursor.peek().is_none_or(|next| next == ',' || next == close);
        if missing { Ok(Element::Text(Vec::new())) } else { self.element() }
    }

    fn element(&mut self) -> Result<Element> {
        self.deeper(|parser| match parser.cursor.peek() {
            Some('[') => {
                parser.cursor.next();
                Ok(Element::List(parser.items(']', |parser| parser.argument(']'))?))
            }
            Some('{') => {
                parser.cursor.next();
                Ok(Element::Map(parser.items('}', Parser::pair)?))
            }
            Some(quote @ ('\'' | '"')) => {
                parser.cursor.next();
                Ok(Element::Text(parser.text_until(Some(quote))?))
            }
            _ => parser.primitive(),
        })
    }

    /// A key and its value in a mapping.
    fn pair(&mut self) -> Result<(Value, Element)> {
        let start = self.cursor.at;
        let word = self.word(false)?;
        let Element::Literal(key) = self.literal(word, start)? else {
            return Err(self.error("a key is a plain word"));
        };
        self.expect(':')?;
        self.cursor.space();
        Ok((key, self.element()?))
    }

    /// Unquoted text with interpolations in it; one literal or interpolation alone is typed.
    fn primitive(&mut self) -> Result<Element> {
        let start = self.cursor.at;
        let mut parts = Vec::new();
        let mut word = self.word(true)?;
        if !self.cursor.rest().starts_with("${") {
            return self.literal(word, start);
        }
        while self.cursor.rest().starts_with("${") {
            // Space before an interpolation belongs to the text.
            word.text.push_str(&word.space);
            push_text(&mut parts, &mut word.text);
            parts.push(Part::Interpolation(self.interpolation()?));
            word = self.word(true)?;
        }
        push_text(&mut parts, &mut word.text);
        let alone = parts.len() == 1;
        match parts.pop() {
            Some(Part::Interpolation(only)) if alone => Ok(Element::Interpolation(only)),
            last => {
                parts.extend(last);
                Ok(Element::Text(parts))
            }
        }
    }

    fn literal(&self, word: Word, start: usize) -> Result<Element> {
        if word.untyped {
            return Ok(Element::Literal(Value::String(word.text)));
        }
        if word.text.is_empty() {
            return Err(match self.cursor.peek() {
                Some(found) => self.unexpected(found),
                None => self.error("a value is missing"),
            });
        }
        let value = literal::value(&word.text);
        value
            .map(Element::Literal)
            .map_err(|refused| SyntaxError { at: start, message: refused.to_string() })
    }

    /// Unquoted text up to what cannot be part of it; the space at its end is kept apart.
    fn word(&mut self, colons: bool) -> Result<Word> {
        let mut word = Word::default();
        while let Some(next) = self.cursor.peek() {
            if ",]}".contains(next)
                || next == ':' && !colons
                || self.cursor.rest().starts_with("${")
            {
                break;
            }
            let plain = next.is_ascii_alphanumeric() || next == '_' || UNQUOTED.contains(next);
            if !word.take(&mut self.cursor, plain || next == ':') {
                return Err(self.unexpected(next));
            }
        }
        Ok(word)
    }

    fn deeper<T>(&mut self, parse: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.depth == MAX_DEPTH {
            return Err(self.error("this is nested too deep"));
        }
        self.depth += 1;
        let parsed = parse(self);
        self.depth -= 1;
        parsed
    }

    fn unexpected(&self, found: char) -> SyntaxError {
        self.error(&format!("unexpected `{}`", found.escape_debug()))
    }

    fn error(&self, message: &str) -> SyntaxError {
        SyntaxError { at: self.cursor.at, message: message.to_owned() }
    }
}

fn push_text(parts: &mut Vec<Part>, text: &mut String) {
    if !text.is_empty() {
        parts.push(Part::Text(std::mem::take(text)));
    }
}
