//! ROUGE-N and ROUGE-L: F-measures of shared n-grams and of the longest common subsequence.
//!
//! Source: Lin 2004, "ROUGE: a package for automatic evaluation of summaries". The tokens and the
//! corner cases are those of Google's `rouge-score` without stemming: lower case, every run of
//! characters other than `a-z0-9` is a gap, and a text without tokens scores 0.

use super::bag::{Bag, f_measure};

/// F-measure of the shared n-grams of `n` tokens.
pub fn rouge_n(n: usize, expected: &str, output: &str) -> f64 {
    let (expected, output) = (tokens(expected), tokens(output));
    let grams = |tokens: &[String]| -> Bag<Vec<String>> {
        tokens.windows(n).map(<[String]>::to_vec).collect()
    };
    let (expected, output) = (grams(&expected), grams(&output));
    f_measure(expected.overlap(&output), expected.len(), output.len())
}

/// F-measure of the longest common subsequence of tokens, each text taken as one sentence.
pub fn rouge_l(expected: &str, output: &str) -> f64 {
    let (expected, output) = (tokens(expected), tokens(output));
    f_measure(common_subsequence(&expected, &output), expected.len(), output.len())
}

/// Length of the longest common subsequence, in `left × right` steps and one row of memory.
fn common_subsequence(left: &[String], right: &[String]) -> usize {
    // row[j]: the answer for the part of `left` seen so far and the first j tokens of `right`.
    let mut row = vec![0; right.len() + 1];
    for token in left {
        let mut diagonal = 0;
        for (column, other) in right.iter().enumerate() {
            let above = row[column + 1];
            row[column + 1] = if token == other { diagonal + 1 } else { above.max(row[column]) };
            diagonal = above;
        }
    }
    row[right.len()]
}

fn tokens(text: &str) -> Vec<String> {
    let lower = text.to_lowercase();
    let is_gap = |c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit());
    lower.split(is_gap).filter(|token| !token.is_empty()).map(str::to_owned).collect()
}
