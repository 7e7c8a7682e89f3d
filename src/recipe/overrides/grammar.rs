//! Hydra's override grammar: `a.b=1`, `+a=1`, `++a=1`, `~a`, lists, mappings, quotes, functions.

use super::functions;
use crate::recipe::literal::{self, ESCAPABLE, UNQUOTED};
use serde_yaml::Value;
use std::ops::Range;

/// The deepest nesting of lists, mappings and calls in one value.
const MAX_DEPTH: usize = 24;
/// The most keys in one path.
const MAX_STEPS: usize = 32;

/// What an override does to its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// `a=1`: the key must be there.
    Change,
    /// `+a=1`: the key must not be there.
    Add,
    /// `++a=1`.
    Force,
    /// `~a`, or `~a=1` if it has that value.
    Delete,
    /// `a+=[1]`: more items for a list. Hydra does not have this one.
    Append,
}

/// An override as it was typed, with byte places in its text.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Parsed {
    pub(crate) action: Action,
    pub(crate) key: Vec<String>,
    pub(crate) key_span: Range<usize>,
    /// None only for `~a`.
    pub(crate) value: Option<Element>,
    pub(crate) value_span: Range<usize>,
}

/// A value of the command line.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Element {
    /// Unquoted: null, a truth, a number or a text.
    Word(Value),
    Quoted {
        text: String,
        quote: char,
    },
    List(Vec<Element>),
    Map(Vec<(Value, Element)>),
    Sweep(Sweep),
}

/// Several values for one key.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sweep {
    pub(crate) kind: SweepKind,
    pub(crate) tags: Vec<String>,
    pub(crate) shuffle: bool,
}

/// How the values of a sweep are given.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum SweepKind {
    /// `a,b` (simple) or `choice(a,b)`.
    Choice { items: Vec<Element>, simple: bool },
    /// Half open, as Python's.
    Range { start: Value, stop: Value, step: Value },
    /// Everything between two numbers, for searches.
    Interval { start: Value, end: Value },
    /// Names by pattern.
    Glob { include: Vec<String>, exclude: Vec<String> },
}

/// What is wrong with an override, and where in it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SyntaxError {
    pub(crate) at: usize,
    pub(crate) message: String,
    pub(crate) help: Option<&'static str>,
}

pub(crate) type Result<T> = std::result::Result<T, SyntaxError>;

const QUOTE: &str = "put the value in quotes, for the shell too: 'key=\"value\"'";

/// Reads one override.
pub(crate) fn parse(text: &str) -> Result<Parsed> {
    let mut parser = Parser { text, at: 0, depth: 0 };
    let mut action = match text.as_bytes() {
        [b'~', ..] => Action::Delete,
        [b'+', b'+', ..] => Action::Force,
        [b'+', ..] => Action::Add,
        _ => Action::Change,
    };
    parser.at = match action {
        Action::Delete | Action::Add => 1,
        Action::Force => 2,
        _ => 0,
    };
    let start = parser.at;
    let key = parser.key()?;
    let key_span = start..parser.at;
    if action == Action::Change && parser.rest().starts_with("+=") {
        parser.next();
        action = Action::Append;
    }
    if action == Action::Delete && parser.peek().is_none() {
        return Ok(Parsed {
            action,
            key,
            key_span: key_span.clone(),
            value: None,
            value_span: key_span,
        });
    }
    parser.equals()?;
    parser.space();
    let start = parser.at;
    let value = parser.value()?;
    let end = start + text.get(start..).unwrap_or_default().trim_end().len();
    Ok(Parsed { action, key, key_span, value: Some(value), value_span: start..end })
}

struct Parser<'t> {
    text: &'t str,
    at: usize,
    depth: usize,
}

impl Parser<'_> {
    fn key(&mut self) -> Result<Vec<String>> {
        let mut steps = Vec::new();
        loop {
            let step = self.take_while(|c| c.is_alphanumeric() || "_$-".contains(c)).to_owned();
            if step.is_empty() {
                return Err(self.no_key());
            }
            steps.push(step);
            if steps.len() > MAX_STEPS {
                return Err(self.error("this key has too many parts"));
            }
            if !self.eat('.') {
                return Ok(steps);
            }
        }
    }

    fn no_key(&self) -> SyntaxError {
        match self.peek() {
            None | Some('=') => SyntaxError {
                help: Some("an override is KEY=VALUE, such as model.optim.lr=1e-4"),
                ..self.error("the key is missing")
            },
            Some(found) => self.unexpected(found),
        }
    }

    fn equals(&mut self) -> Result<()> {
        if self.eat('=') {
            return Ok(());
        }
        let (message, help) = match self.peek() {
            Some('[') => (
                "`[` cannot stand in a key",
                "an item of a list is written with a dot: betas.0=0.8",
            ),
            Some('@' | '/') => {
                ("config groups do not exist here", "to set a mapping from a file: key=@file.yaml")
            }
            Some('*' | '|' | '&') => (
                "this operator does not exist here",
                "write the new value; a list grows with key+=[item]",
            ),
            Some(found) => return Err(self.unexpected(found)),
            None => (
                "`=` is missing",
                "an override is KEY=VALUE, such as model.optim.lr=1e-4; `~KEY` deletes",
            ),
        };
        Err(SyntaxError { help: Some(help), ..self.error(message) })
    }

    /// Everything after the equals sign.
    fn value(&mut self) -> Result<Element> {
        self.space();
        if self.peek().is_none() {
            return Ok(Element::Quoted { text: String::new(), quote: '\'' });
        }
        let mut elements = vec![self.element()?];
        self.space();
        while self.eat(',') {
            self.space();
            elements.push(self.element()?);
            self.space();
        }
        if let Some(found) = self.peek() {
            return Err(self.unexpected(found));
        }
        match elements.pop() {
            Some(only) if elements.is_empty() => Ok(only),
            last => {
                elements.extend(last);
                let kind = SweepKind::Choice { items: elements, simple: true };
                Ok(Element::Sweep(Sweep { kind, tags: Vec::new(), shuffle: false }))
            }
        }
    }

    fn element(&mut self) -> Result<Element> {
        if self.depth == MAX_DEPTH {
            return Err(self.error("this is nested too deep"));
        }
        self.depth += 1;
        let element = match self.peek() {
            Some('[') => self.list(),
            Some('{') => self.map(),
            Some(quote @ ('\'' | '"')) => self.quoted(quote),
            _ => self.function_or_word(),
        };
        self.depth -= 1;
        element
    }

    fn list(&mut self) -> Result<Element> {
        self.next();
        self.space();
        let mut items = Vec::new();
        if self.eat(']') {
            return Ok(Element::List(items));
        }
        loop {
            self.space();
            items.push(self.element()?);
            self.space();
            if self.eat(']') {
                return Ok(Element::List(items));
            }
            self.expect(',')?;
        }
    }

    fn map(&mut self) -> Result<Element> {
        self.next();
        self.space();
        let mut pairs = Vec::new();
        if self.eat('}') {
            return Ok(Element::Map(pairs));
        }
        loop {
            self.space();
            let word = self.word(false)?;
            let Element::Word(key) = self.literal(word)? else {
                return Err(self.error("a key is a plain word"));
            };
            self.expect(':')?;
            self.space();
            pairs.push((key, self.element()?));
            self.space();
            if self.eat('}') {
                return Ok(Element::Map(pairs));
            }
            self.expect(',')?;
        }
    }

    fn quoted(&mut self, quote: char) -> Result<Element> {
        let open = self.at;
        self.next();
        let mut text = String::new();
        loop {
            let backslashes = self.take_while(|c| c == '\\').len();
            let at_quote = self.peek() == Some(quote);
            let kept = if at_quote { backslashes / 2 } else { backslashes };
            text.extend(std::iter::repeat_n('\\', kept));
            match self.next() {
                Some(_) if at_quote && backslashes.is_multiple_of(2) => {
                    return Ok(Element::Quoted { text, quote });
                }
                Some(character) => text.push(character),
                None => {
                    self.at = open;
                    return Err(self.error("this quote is not closed"));
                }
            }
        }
    }

    fn function_or_word(&mut self) -> Result<Element> {
        let start = self.at;
        let name = self.take_while(|c| c.is_ascii_alphanumeric() || c == '_').to_owned();
        self.space();
        if !name.is_empty() && !name.starts_with(|c: char| c.is_ascii_digit()) && self.eat('(') {
            let (arguments, named) = self.arguments()?;
            return functions::call(&name, arguments, named).map_err(|message| SyntaxError {
                at: start,
                message,
                help: None,
            });
        }
        self.at = start;
        let word = self.word(true)?;
        self.literal(word)
    }

    #[expect(clippy::type_complexity, reason = "a pair that lives for one call")]
    fn arguments(&mut self) -> Result<(Vec<Element>, Vec<(String, Element)>)> {
        let (mut positional, mut named) = (Vec::new(), Vec::new());
        self.space();
        if self.eat(')') {
            return Ok((positional, named));
        }
        loop {
            self.space();
            let start = self.at;
            let name = self.take_while(|c| c.is_ascii_alphanumeric() || c == '_').to_owned();
            self.space();
            if !name.is_empty() && self.eat('=') {
                self.space();
                named.push((name, self.element()?));
            } else {
                self.at = start;
                if !named.is_empty() {
                    return Err(self.error("an argument without a name follows one with a name"));
                }
                positional.push(self.element()?);
            }
            self.space();
            if self.eat(')') {
                return Ok((positional, named));
            }
            self.expect(',')?;
        }
    }

    fn literal(&self, word: Word) -> Result<Element> {
        if word.untyped {
            return Ok(Element::Word(Value::String(word.text)));
        }
        if word.text.is_empty() {
            return Err(match self.peek() {
                Some(found) => self.unexpected(found),
                None => self.error("a value is missing"),
            });
        }
        let value =
            literal::value(&word.text).map_err(|refused| self.error(&refused.to_string()))?;
        Ok(Element::Word(value))
    }

    /// Unquoted text up to what cannot be part of it.
    fn word(&mut self, value: bool) -> Result<Word> {
        let mut word = Word::default();
        while let Some(next) = self.peek() {
            let escape =
                self.rest().chars().nth(1).filter(|c| next == '\\' && ESCAPABLE.contains(*c));
            let plain = next.is_alphanumeric() || next == '_' || UNQUOTED.contains(next);
            if value && self.rest().starts_with("${") {
                let interpolation = self.interpolation()?;
                word.push(&interpolation);
                word.untyped = true;
            } else if let Some(escape) = escape {
                self.next();
                self.next();
                word.push(escape.encode_utf8(&mut [0; 4]));
                word.untyped = true;
            } else if next == ' ' || next == '\t' {
                self.next();
                word.space.push(next);
            } else if plain || value && next == ':' {
                self.next();
                word.push(next.encode_utf8(&mut [0; 4]));
            } else if ",]}):".contains(next) {
                break;
            } else {
                return Err(self.unexpected(next));
            }
        }
        Ok(word)
    }

    /// `${…}` as it stands; braces in it are counted.
    fn interpolation(&mut self) -> Result<String> {
        let mut open = 0_usize;
        for (at, character) in self.rest().char_indices() {
            match character {
                '{' => open += 1,
                '}' => open -= 1,
                _ => {}
            }
            if character == '}' && open == 0 {
                let end = self.at + at + 1;
                let text = self.text.get(self.at..end).unwrap_or_default().to_owned();
                self.at = end;
                return Ok(text);
            }
        }
        Err(self.error("`${` is not closed"))
    }

    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.at += next.len_utf8();
        Some(next)
    }

    fn eat(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.at += wanted.len_utf8();
        }
        found
    }

    fn expect(&mut self, wanted: char) -> Result<()> {
        if self.eat(wanted) {
            return Ok(());
        }
        Err(match self.peek() {
            Some(found) => self.unexpected(found),
            None => self.error(&format!("`{wanted}` is missing")),
        })
    }

    fn space(&mut self) {
        self.take_while(|c| c == ' ' || c == '\t');
    }

    fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> &str {
        let start = self.at;
        let rest = self.rest();
        let length = rest.find(|c| !wanted(c)).unwrap_or(rest.len());
        self.at += length;
        self.text.get(start..self.at).unwrap_or_default()
    }

    fn unexpected(&self, found: char) -> SyntaxError {
        let message = format!("unexpected `{}`", found.escape_debug());
        SyntaxError { help: Some(QUOTE), ..self.error(&message) }
    }

    fn error(&self, message: &str) -> SyntaxError {
        SyntaxError { at: self.at, message: message.to_owned(), help: None }
    }
}

/// Unquoted text as it is collected.
#[derive(Default)]
struct Word {
    text: String,
    /// Space that belongs to the text only if more follows.
    space: String,
    /// An escape or an interpolation makes it a text.
    untyped: bool,
}

impl Word {
    fn push(&mut self, text: &str) {
        self.text.push_str(&std::mem::take(&mut self.space));
        self.text.push_str(text);
    }
}
