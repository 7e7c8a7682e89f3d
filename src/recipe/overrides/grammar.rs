//! Hydra's override grammar: `a.b=1`, `+a=1`, `++a=1`, `~a`, lists, mappings, quotes, functions.

use super::element::{Action, Element, Parsed, Sweep, SweepKind};
use super::functions;
use crate::recipe::cursor::{Bracketed, Cursor, Word};
use crate::recipe::literal::{self, UNQUOTED};
use serde_yaml::Value;

/// The deepest nesting of lists, mappings and calls in one value.
const MAX_DEPTH: usize = 24;
/// The most keys in one path.
const MAX_STEPS: usize = 32;

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
    let mut parser = Parser { cursor: Cursor::new(text), depth: 0 };
    let mut action = match text.as_bytes() {
        [b'~', ..] => Action::Delete,
        [b'+', b'+', ..] => Action::Force,
        [b'+', ..] => Action::Add,
        _ => Action::Change,
    };
    parser.cursor.at = match action {
        Action::Delete | Action::Add => 1,
        Action::Force => 2,
        _ => 0,
    };
    let start = parser.cursor.at;
    let key = parser.key()?;
    let key_span = start..parser.cursor.at;
    if action == Action::Change && parser.cursor.rest().starts_with("+=") {
        parser.cursor.next();
        action = Action::Append;
    }
    if action == Action::Delete && parser.cursor.peek().is_none() {
        return Ok(Parsed {
            action,
            key,
            key_span: key_span.clone(),
            value: None,
            value_span: key_span,
        });
    }
    parser.equals()?;
    parser.cursor.space();
    let start = parser.cursor.at;
    let value = parser.value()?;
    let end = start + text.get(start..).unwrap_or_default().trim_end().len();
    Ok(Parsed { action, key, key_span, value: Some(value), value_span: start..end })
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
        if self.cursor.eat(wanted) {
            return Ok(());
        }
        Err(match self.cursor.peek() {
            Some(found) => self.unexpected(found),
            None => self.error(&format!("`{wanted}` is missing")),
        })
    }
}

impl Parser<'_> {
    fn key(&mut self) -> Result<Vec<String>> {
        let mut steps = Vec::new();
        loop {
            let step =
                self.cursor.take_while(|c| c.is_alphanumeric() || "_$-".contains(c)).to_owned();
            if step.is_empty() {
                return Err(self.no_key());
            }
            steps.push(step);
            if steps.len() > MAX_STEPS {
                return Err(self.error("this key has too many parts"));
            }
            if !self.cursor.eat('.') {
                return Ok(steps);
            }
        }
    }

    fn no_key(&self) -> SyntaxError {
        match self.cursor.peek() {
            None | Some('=') => SyntaxError {
                help: Some("an override is KEY=VALUE, such as model.optim.lr=1e-4"),
                ..self.error("the key is missing")
            },
            Some(found) => self.unexpected(found),
        }
    }

    fn equals(&mut self) -> Result<()> {
        if self.cursor.eat('=') {
            return Ok(());
        }
        let (message, help) = match self.cursor.peek() {
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
            Some(':') => ("`=` is missing", "write KEY=VALUE, without a colon"),
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
        self.cursor.space();
        if self.cursor.peek().is_none() {
            return Ok(Element::Quoted { text: String::new(), quote: '\'' });
        }
        let mut elements = vec![self.element()?];
        self.cursor.space();
        while self.cursor.eat(',') {
            self.cursor.space();
            elements.push(self.element()?);
            self.cursor.space();
        }
        if let Some(found) = self.cursor.peek() {
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
        let element = match self.cursor.peek() {
            Some('[') => {
                self.cursor.next();
                self.items(']', Parser::element).map(Element::List)
            }
            Some('{') => {
                self.cursor.next();
                self.items('}', Parser::pair).map(Element::Map)
            }
            Some(quote @ ('\'' | '"')) => self.quoted(quote),
            _ => self.function_or_word(),
        };
        self.depth -= 1;
        element
    }

    /// A key and its value in a mapping.
    fn pair(&mut self) -> Result<(Value, Element)> {
        let word = self.word(false)?;
        let Element::Word(key) = self.literal(word)? else {
            return Err(self.error("a key is a plain word"));
        };
        self.expect(':')?;
        self.cursor.space();
        Ok((key, self.element()?))
    }

    fn quoted(&mut self, quote: char) -> Result<Element> {
        let open = self.cursor.at;
        self.cursor.next();
        let mut text = String::new();
        loop {
            let backslashes = self.cursor.take_while(|c| c == '\\').len();
            let at_quote = self.cursor.peek() == Some(quote);
            let kept = if at_quote { backslashes / 2 } else { backslashes };
            text.extend(std::iter::repeat_n('\\', kept));
            match self.cursor.next() {
                Some(_) if at_quote && backslashes.is_multiple_of(2) => {
                    return Ok(Element::Quoted { text, quote });
                }
                Some(character) => text.push(character),
                None => {
                    self.cursor.at = open;
                    return Err(self.error("this quote is not closed"));
                }
            }
        }
    }

    fn function_or_word(&mut self) -> Result<Element> {
        let start = self.cursor.at;
        let name = self.cursor.take_while(|c| c.is_ascii_alphanumeric() || c == '_').to_owned();
        self.cursor.space();
        if !name.is_empty()
            && !name.starts_with(|c: char| c.is_ascii_digit())
            && self.cursor.eat('(')
        {
            let (arguments, named) = self.arguments()?;
            return functions::call(&name, arguments, named).map_err(|message| SyntaxError {
                at: start,
                message,
                help: None,
            });
        }
        self.cursor.at = start;
        let word = self.word(true)?;
        self.literal(word)
    }

    #[expect(clippy::type_complexity, reason = "a pair that lives for one call")]
    fn arguments(&mut self) -> Result<(Vec<Element>, Vec<(String, Element)>)> {
        let (mut positional, mut named) = (Vec::new(), Vec::new());
        self.items(')', |parser| {
            let start = parser.cursor.at;
            let name =
                parser.cursor.take_while(|c| c.is_ascii_alphanumeric() || c == '_').to_owned();
            parser.cursor.space();
            if !name.is_empty() && parser.cursor.eat('=') {
                parser.cursor.space();
                named.push((name, parser.element()?));
            } else if named.is_empty() {
                parser.cursor.at = start;
                positional.push(parser.element()?);
            } else {
                return Err(parser.error("an argument without a name follows one with a name"));
            }
            Ok(())
        })?;
        Ok((positional, named))
    }

    fn literal(&self, word: Word) -> Result<Element> {
        if word.untyped {
            return Ok(Element::Word(Value::String(word.text)));
        }
        if word.text.is_empty() {
            return Err(match self.cursor.peek() {
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
        while let Some(next) = self.cursor.peek() {
            if ",]})".contains(next) || next == ':' && !value {
                break;
            }
            if value && self.cursor.rest().starts_with("${") {
                let interpolation = self.interpolation()?;
                word.push(&interpolation);
                word.untyped = true;
                continue;
            }
            let plain = next.is_alphanumeric() || next == '_' || UNQUOTED.contains(next);
            if !word.take(&mut self.cursor, plain || next == ':') {
                return Err(self.unexpected(next));
            }
        }
        Ok(word)
    }

    /// `${…}` as it stands; braces in it are counted.
    fn interpolation(&mut self) -> Result<String> {
        let mut open = 0_usize;
        for (at, character) in self.cursor.rest().char_indices() {
            match character {
                '{' => open += 1,
                '}' => open -= 1,
                _ => {}
            }
            if character == '}' && open == 0 {
                let end = self.cursor.at + at + 1;
                let text = self.cursor.text.get(self.cursor.at..end).unwrap_or_default().to_owned();
                self.cursor.at = end;
                return Ok(text);
            }
        }
        Err(self.error("`${` is not closed"))
    }

    fn unexpected(&self, found: char) -> SyntaxError {
        let message = format!("unexpected `{}`", found.escape_debug());
        SyntaxError { help: Some(QUOTE), ..self.error(&message) }
    }

    fn error(&self, message: &str) -> SyntaxError {
        SyntaxError { at: self.cursor.at, message: message.to_owned(), help: None }
    }
}
