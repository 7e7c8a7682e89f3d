//! Scores of one generated text: exact match, token F1, length, distinct n-grams, valid JSON.

use super::bag::{Bag, f_measure};
use serde::de::IgnoredAny;

/// 1 when the texts are equal after stripping white space at both ends, else 0.
pub fn exact_match(expected: &str, output: &str) -> f64 {
    f64::from(u8::from(expected.trim() == output.trim()))
}

/// F1 of the two bags of words.
///
/// The definition is that of Rajpurkar et al. 2016 (`evaluate-v2.0.py` for empty texts) without
/// the step that drops `a`, `an` and `the`: lower case, ASCII punctuation removed, split at white
/// space. When a side has no words, the score is 1 if the other has none either, else 0.
pub fn token_f1(expected: &str, output: &str) -> f64 {
    let (expected, output) = (words(expected), words(output));
    if expected.is_empty() && output.is_empty() {
        return 1.0;
    }
    f_measure(expected.overlap(&output), expected.len(), output.len())
}

/// Number of characters (Unicode scalar values) of the text.
pub fn length(output: &str) -> f64 {
    output.chars().count() as f64
}

/// The runs of `n` words of a text, split at white space and otherwise as they are, of which
/// distinct-n counts the different ones (Li et al. 2016, "A diversity-promoting objective function
/// for neural conversation models").
pub fn word_runs(n: usize, output: &str) -> Vec<Vec<&str>> {
    let words: Vec<&str> = output.split(is_space).filter(|word| !word.is_empty()).collect();
    words.windows(n).map(<[&str]>::to_vec).collect()
}

/// 1 when the text is one JSON value (RFC 8259), white space around it allowed, else 0.
pub fn json_valid(output: &str) -> f64 {
    f64::from(u8::from(serde_json::from_str::<IgnoredAny>(output).is_ok()))
}

/// White space as the reference implementations (Python's `str.split`) have it.
pub fn is_space(letter: char) -> bool {
    letter.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&letter)
}

fn words(text: &str) -> Bag<String> {
    let lower = text.to_lowercase();
    let kept: String = lower.chars().filter(|c| !c.is_ascii_punctuation()).collect();
    kept.split_whitespace().map(str::to_owned).collect()
}
