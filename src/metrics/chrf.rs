//! chrF as sacreBLEU 2.x computes it by default: characters in runs of 1 to 6, beta 2, no words.
//!
//! Source: Popović 2015, "chrF: character n-gram F-score for automatic MT evaluation"; signature
//! `nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no`. Scores lie between 0 and 100.

use super::bag::Bag;
use super::texts::is_space;

/// Longest run of characters.
const ORDERS: usize = 6;
/// What is summed over the samples: n-grams of the output, of the expected text, and matches, for
/// each order.
pub const COUNTS: usize = 3 * ORDERS;
/// How much more recall weighs than precision, squared.
const FACTOR: f64 = 4.0;

/// What one sample adds to the corpus: see [`COUNTS`].
pub fn counts(expected: &str, output: &str) -> [f64; COUNTS] {
    let letters = |text: &str| -> Vec<char> { text.chars().filter(|c| !is_space(*c)).collect() };
    let (expected, output) = (letters(expected), letters(output));
    let mut counts = [0.0; COUNTS];
    for order in 1..=ORDERS {
        let wanted: Bag<&[char]> = expected.windows(order).collect();
        let given: Bag<&[char]> = output.windows(order).collect();
        let at = 3 * (order - 1);
        // n-grams of an output count only where the expected text has some of that length.
        counts[at] = if wanted.is_empty() { 0.0 } else { given.len() as f64 };
        counts[at + 1] = wanted.len() as f64;
        counts[at + 2] = given.overlap(&wanted) as f64;
    }
    counts
}

/// chrF of summed counts: the F-measure of precision and recall averaged over the orders that both
/// sides have.
pub fn score(counts: &[f64]) -> f64 {
    let (mut precision, mut recall, mut orders) = (0.0, 0.0, 0.0);
    for order in counts.chunks_exact(3).filter(|order| order[0] > 0.0 && order[1] > 0.0) {
        precision += order[2] / order[0];
        recall += order[2] / order[1];
        orders += 1.0;
    }
    if precision + recall == 0.0 {
        return 0.0;
    }
    let (precision, recall) = (precision / orders, recall / orders);
    100.0 * (1.0 + FACTOR) * precision * recall / (FACTOR * precision + recall)
}
