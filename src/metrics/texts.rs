//! Scores of one generated text against the expected one: exact match, token F1, length.

use super::bag::{Bag, f_measure};

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

fn words(text: &str) -> Bag<String> {
    let lower = text.to_lowercase();
    let kept: String = lower.chars().filter(|c| !c.is_ascii_punctuation()).collect();
    kept.split_whitespace().map(str::to_owned).collect()
}
