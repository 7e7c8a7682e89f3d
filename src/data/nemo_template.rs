//! NeMo's `prompt_template`: pieces of text tokenized apart, cut by its rules.
//!
//! Source: NeMo 1.x, `gpt_sft_dataset.py`, `_maybe_validate_prompt_template`,
//! `_separate_template`, `_multiple_truncation`, `_process_example`.

use super::rows::{Fields, text_field};
use super::tokenizer::Tokenizer;
use std::ops::Range;

/// A template that cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// The label is not last.
    #[error("prompt_template `{template}` must end with `{{{label}}}`, the field of label_key")]
    LabelNotLast {
        /// The template.
        template: String,
        /// `label_key`.
        label: String,
    },
    /// A field to cut from is not in the template, or twice.
    #[error("truncation_field `{field}` must stand once in prompt_template `{template}`")]
    TruncationField {
        /// The template.
        template: String,
        /// The field.
        field: String,
    },
}

/// A template taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NemoTemplate {
    pieces: Vec<Piece>,
    truncation_fields: Vec<String>,
}

/// A part of the template that is tokenized on its own.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    /// Text between placeholders.
    Text(String),
    /// A field's value, with the spaces that stand before the placeholder.
    Field { spaces: usize, name: String },
}

/// Room for a sample, and what is added to it.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Most ids of a sample.
    pub max_length: usize,
    /// Room kept for the answer.
    pub tokens_to_generate: usize,
    /// Ids that are added: 1 for bos, 1 for eos.
    pub added: usize,
    /// Cut from the left end of a field rather than from the right.
    pub truncate_left: bool,
}

/// The ids of a row, not yet with bos and eos.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts {
    /// What comes before the answer.
    pub context: Vec<u32>,
    /// The answer.
    pub answer: Vec<u32>,
    /// The context's text, as it was before cutting.
    pub prompt: String,
    /// Whether something was cut.
    pub cut: bool,
}

impl NemoTemplate {
    /// Takes a template apart; the label's placeholder comes last.
    ///
    /// `\n`, `\t`, `\r` and `\\` written out in the template are what they stand for (NeMo decodes
    /// Python's escapes).
    pub fn parse(
        template: &str,
        label_key: &str,
        truncation_fields: &[String],
    ) -> Result<NemoTemplate, Error> {
        let template = unescape(template);
        if !template.ends_with(&format!("{{{label_key}}}")) {
            return Err(Error::LabelNotLast { template, label: label_key.to_owned() });
        }
        let pieces = separate(&template);
        for field in truncation_fields {
            let is_it =
                |piece: &&Piece| matches!(piece, Piece::Field { name, .. } if name == field);
            let repeated = truncation_fields.iter().filter(|other| *other == field).count() != 1;
            if repeated || pieces.iter().filter(is_it).count() != 1 {
                return Err(Error::TruncationField { template, field: field.clone() });
            }
        }
        Ok(NemoTemplate { pieces, truncation_fields: truncation_fields.to_vec() })
    }

    /// The ids for a row: every piece tokenized apart, cut to the budget.
    ///
    /// Values lose their outer spaces. A piece loses one leading space when the tokenizer gives the
    /// same ids with and without it between words (see [`Tokenizer::space_sensitive`]).
    pub fn apply(
        &self,
        row: &Fields,
        tokenizer: &Tokenizer,
        budget: Budget,
    ) -> Result<Parts, String> {
        let texts: Vec<String> =
            self.pieces.iter().map(|piece| piece.text(row)).collect::<Result<_, _>>()?;
        let keep_space = tokenizer.space_sensitive();
        let encode = |(piece, text): (&Piece, &String)| {
            let drop = !keep_space && piece.starts_with_space();
            let text = if drop { text.strip_prefix(' ').unwrap_or(text) } else { text };
            tokenizer.encode(text).map_err(|error| error.to_string())
        };
        let mut ids: Vec<Vec<u32>> =
            self.pieces.iter().zip(&texts).map(encode).collect::<Result<_, _>>()?;
        let cut = self.truncate(&mut ids, budget);
        let answer = ids.pop().unwrap_or_default();
        let prompt = texts[..texts.len() - 1].concat();
        Ok(Parts { context: ids.concat(), answer, prompt, cut })
    }

    /// The label's text.
    pub fn label(&self, row: &Fields) -> Result<String, String> {
        self.pieces.last().map_or(Ok(String::new()), |piece| piece.text(row))
    }

    /// Takes what is over the budget from the truncation fields: in equal parts, the remainder from
    /// the first ones, and from each no more than it has.
    fn truncate(&self, ids: &mut [Vec<u32>], budget: Budget) -> bool {
        let Some((answer, context)) = ids.split_last() else { return false };
        let context: usize = context.iter().map(Vec::len).sum();
        let total = context + answer.len().max(budget.tokens_to_generate) + budget.added;
        let count = self.truncation_fields.len();
        let Some(over) = total.checked_sub(budget.max_length).filter(|over| *over > 0) else {
            return false;
        };
        if count == 0 {
            return false;
        }
        let mut nth = 0;
        for (piece, ids) in self.pieces.iter().zip(ids) {
            let Piece::Field { name, .. } = piece else { continue };
            if self.truncation_fields.contains(name) {
                let share = over / count + usize::from(nth < over % count);
                ids.drain(end_range(ids.len(), share.min(ids.len()), budget.truncate_left));
                nth += 1;
            }
        }
        true
    }
}

/// `count` places at one end of `length`.
fn end_range(length: usize, count: usize, left: bool) -> Range<usize> {
    if left { 0..count } else { length - count..length }
}

impl Piece {
    fn text(&self, row: &Fields) -> Result<String, String> {
        match self {
            Piece::Text(text) => Ok(text.clone()),
            Piece::Field { spaces, name } => {
                let value = text_field(row, name)?.trim_matches(' ');
                Ok(format!("{}{value}", " ".repeat(*spaces)))
            }
        }
    }

    /// Whether the piece as it stands in the template starts with a space.
    fn starts_with_space(&self) -> bool {
        match self {
            Piece::Text(text) => text.starts_with(' '),
            Piece::Field { spaces, .. } => *spaces > 0,
        }
    }
}

/// Cuts at placeholders, which take along the spaces before them (the regex `( *?{.+?})`).
fn separate(template: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut rest = template;
    while let Some((open, close)) = placeholder(rest) {
        let text = rest[..open].trim_end_matches(' ');
        if !text.is_empty() {
            pieces.push(Piece::Text(text.to_owned()));
        }
        let name = rest[open + 1..close].to_owned();
        pieces.push(Piece::Field { spaces: open - text.len(), name });
        rest = &rest[close + 1..];
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest.to_owned()));
    }
    pieces
}

/// Where the first `{…}` with at least one character inside opens and closes.
fn placeholder(text: &str) -> Option<(usize, usize)> {
    text.match_indices('{').find_map(|(open, _)| {
        let first = text[open + 1..].chars().next()?;
        let inside = open + 1 + first.len_utf8();
        let close = inside + text[inside..].find('}')?;
        (!text[open..close].contains('\n')).then_some((open, close))
    })
}

fn unescape(template: &str) -> String {
    let mut text = String::with_capacity(template.len());
    let mut characters = template.chars();
    while let Some(character) = characters.next() {
        let mut ahead = characters.clone();
        let escaped = match (character, ahead.next()) {
            ('\\', Some('n')) => Some('\n'),
            ('\\', Some('t')) => Some('\t'),
            ('\\', Some('r')) => Some('\r'),
            ('\\', Some('\\')) => Some('\\'),
            _ => None,
        };
        if escaped.is_some() {
            characters = ahead;
        }
        text.push(escaped.unwrap_or(character));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Piece {
        Piece::Text(text.to_owned())
    }

    fn field(spaces: usize, name: &str) -> Piece {
        Piece::Field { spaces, name: name.to_owned() }
    }

    #[test]
    fn placeholders_carry_their_spaces() {
        // The example in NeMo's source.
        let template = "Context:{context}  Passage: {passage}\\n\\nQuestion:{question} {label}";
        let parsed = NemoTemplate::parse(template, "label", &[]).unwrap();
        let expected = [
            text("Context:"),
            field(0, "context"),
            text("  Passage:"),
            field(1, "passage"),
            text("\n\nQuestion:"),
            field(0, "question"),
            field(1, "label"),
        ];
        assert_eq!(parsed.pieces, expected);
    }

    #[test]
    fn the_label_is_last_and_fields_to_cut_are_there() {
        let parse = |template, cut: &[&str]| {
            let cut: Vec<_> = cut.iter().map(|field| (*field).to_owned()).collect();
            NemoTemplate::parse(template, "output", &cut)
        };
        assert!(parse("{input} {output}", &["input"]).is_ok());
        assert!(matches!(parse("{output} {input}", &[]), Err(Error::LabelNotLast { .. })));
        let missing = parse("{input} {output}", &["context"]);
        assert!(matches!(missing, Err(Error::TruncationField { .. })));
        let twice = parse("{input} {input} {output}", &["input"]);
        assert!(matches!(twice, Err(Error::TruncationField { .. })));
    }

    #[test]
    fn overflow_is_cut_in_equal_parts_the_first_takes_the_rest() {
        let names = ["a".to_owned(), "b".to_owned()];
        let template = NemoTemplate::parse("{a} {b} {label}", "label", &names).unwrap();
        let check = |truncate_left, generate, expected: [&[u32]; 3]| {
            let mut ids = vec![vec![1, 2, 3, 4], vec![5, 6, 7, 8], vec![9, 10]];
            let budget =
                Budget { max_length: 8, tokens_to_generate: generate, added: 1, truncate_left };
            template.truncate(&mut ids, budget);
            assert_eq!(ids, expected);
        };
        // 4 + 4 + 2 + 1 eos is 3 over 8: 2 from the first, 1 from the second.
        check(false, 0, [&[1, 2], &[5, 6, 7], &[9, 10]]);
        check(true, 0, [&[3, 4], &[6, 7, 8], &[9, 10]]);
        // Room for 6 generated ids: 4 + 4 + 6 + 1 is 7 over.
        check(false, 6, [&[], &[5], &[9, 10]]);
    }
}
