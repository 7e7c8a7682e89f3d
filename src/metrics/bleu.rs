//! BLEU as sacreBLEU 2.x computes it by default: tokenizer `13a`, one reference, `exp` smoothing.
//!
//! Source: Papineni et al. 2002, "BLEU: a method for automatic evaluation of machine translation";
//! Post 2018, "A call for clarity in reporting BLEU scores" (tokenizer and signature
//! `nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp`). Scores lie between 0 and 100.

use super::bag::Bag;
use super::texts::is_space;
use regex::Regex;
use std::borrow::Cow;

/// Longest n-gram.
const ORDERS: usize = 4;
/// What is summed over the samples: matches and n-grams of each order, then both lengths.
pub const COUNTS: usize = 2 * ORDERS + 2;

/// mteval-v13a's tokenizer, with its expressions compiled once.
#[derive(Debug)]
pub struct Tokenizer13a(Vec<(Regex, &'static str)>);

impl Tokenizer13a {
    /// Compiles the rules.
    pub fn new() -> Result<Tokenizer13a, regex::Error> {
        let rules = [
            // Punctuation and symbols stand alone,
            (r"([\{-~\[-` -&\(-+:-@/])", " $1 "),
            // so do periods and commas that do not follow a digit,
            (r"([^0-9])([\.,])", "$1 $2 "),
            // or that no digit follows,
            (r"([\.,])([^0-9])", " $1 $2"),
            // and a dash after a digit.
            (r"([0-9])(-)", "$1 $2 "),
        ];
        let compiled = rules.into_iter().map(|(rule, put)| Ok((Regex::new(rule)?, put)));
        compiled.collect::<Result<_, _>>().map(Tokenizer13a)
    }

    /// The tokens of a text.
    pub fn tokens(&self, text: &str) -> Vec<String> {
        let text = text.trim_end_matches(is_space);
        let text = text.replace("<skipped>", "").replace("-\n", "").replace('\n', " ");
        let marks = [("&quot;", "\""), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">")];
        let text = marks.into_iter().fold(text, |text, (mark, sign)| text.replace(mark, sign));
        let mut text = Cow::from(format!(" {text} "));
        for (rule, put) in &self.0 {
            text = Cow::from(rule.replace_all(&text, *put).into_owned());
        }
        text.split(is_space).filter(|token| !token.is_empty()).map(str::to_owned).collect()
    }

    /// What one sample adds to the corpus: see [`COUNTS`].
    pub fn counts(&self, expected: &str, output: &str) -> [f64; COUNTS] {
        let (expected, output) = (self.tokens(expected), self.tokens(output));
        let mut counts = [0.0; COUNTS];
        for order in 1..=ORDERS {
            let grams = |tokens: &[String]| -> Bag<Vec<String>> {
                tokens.windows(order).map(<[String]>::to_vec).collect()
            };
            let (wanted, given) = (grams(&expected), grams(&output));
            counts[order - 1] = given.overlap(&wanted) as f64;
            counts[ORDERS + order - 1] = given.len() as f64;
        }
        counts[2 * ORDERS] = output.len() as f64;
        counts[2 * ORDERS + 1] = expected.len() as f64;
        counts
    }
}

/// BLEU of summed counts. A single text's is taken over the orders that it has n-grams of
/// (`effective`), as sacreBLEU's `sentence_bleu` does; a corpus's is not.
pub fn score(counts: &[f64], effective: bool) -> f64 {
    let (matches, rest) = counts.split_at(ORDERS);
    let (totals, lengths) = rest.split_at(ORDERS);
    if matches.iter().all(|count| *count == 0.0) {
        return 0.0;
    }
    let mut logarithms = Vec::new();
    let mut halvings = 1.0;
    for (matched, total) in matches.iter().zip(totals).take_while(|(_, total)| **total > 0.0) {
        if *matched == 0.0 {
            halvings *= 2.0;
        }
        let precision = if *matched == 0.0 { 1.0 / (halvings * total) } else { matched / total };
        logarithms.push((100.0 * precision).ln());
    }
    if logarithms.len() < ORDERS && !effective {
        // An order without n-grams has precision 0, and so has the geometric mean.
        return 0.0;
    }
    let mean = logarithms.iter().sum::<f64>() / logarithms.len() as f64;
    let (given, wanted) = (lengths[0], lengths[1]);
    let brevity = if given < wanted { (1.0 - wanted / given).exp() } else { 1.0 };
    brevity * mean.exp()
}
