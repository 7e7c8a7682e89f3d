//! Metrics that are ready to score: a column of scores, one a sample, and the value over them all.

use super::bleu::{self, Tokenizer13a};
use super::expression::Expression;
use super::lexicon::Lexicon;
use super::tally::{Numbers, Tally};
use super::{Texts, chrf, expression, rouge, texts};
use crate::spec::metric::MetricName;
use regex::Regex;

/// A metric of one text that needs something prepared.
#[derive(Debug)]
pub(super) enum Prepared {
    /// One of ours.
    Named(MetricName),
    /// Whether the pattern is found.
    Pattern(Box<Regex>),
    /// The value of an expression.
    Expression(Box<Expression>),
    /// Sentiment by a list of words.
    Lexicon(Lexicon),
}

/// One metric's scores of the samples and what they come to.
#[derive(Debug)]
pub(super) struct Column {
    /// A score for each sample; none where the metric has none for a single one.
    pub(super) scores: Option<Vec<f64>>,
    pub(super) tally: Tally,
}

impl Column {
    /// A column whose value is the mean of its scores.
    pub(super) fn of_mean(scores: Vec<f64>) -> Column {
        Column { tally: Tally::mean(scores.iter().copied()), scores: Some(scores) }
    }
}

impl Prepared {
    /// The scores of `rows`.
    pub(super) fn column(
        &self,
        rows: &[Texts<'_>],
        tokenizer: &Tokenizer13a,
    ) -> Result<Column, expression::Error> {
        let each = |score: &dyn Fn(&Texts<'_>) -> f64| rows.iter().map(score).collect();
        Ok(match self {
            Prepared::Named(MetricName::Bleu) => bleu_column(rows, tokenizer),
            Prepared::Named(MetricName::Chrf) => chrf_column(rows),
            Prepared::Named(MetricName::Distinct1) => distinct_column(1, rows),
            Prepared::Named(MetricName::Distinct2) => distinct_column(2, rows),
            Prepared::Named(MetricName::Distinct3) => distinct_column(3, rows),
            Prepared::Named(MetricName::MacroF1) => label_column(rows),
            Prepared::Named(name) => Column::of_mean(each(&|row| {
                // Metrics from logits are kept apart by the scorer.
                score_text(*name, row.expected, row.output).unwrap_or(f64::NAN)
            })),
            Prepared::Pattern(pattern) => {
                Column::of_mean(each(&|row| f64::from(u8::from(pattern.is_match(row.output)))))
            }
            Prepared::Lexicon(lexicon) => Column::of_mean(each(&|row| lexicon.score(row.output))),
            Prepared::Expression(expression) => Column::of_mean(expression.scores(rows)?),
        })
    }
}

/// The score of one text; none for metrics of logits and those that only many texts have.
pub(super) fn score_text(metric: MetricName, expected: &str, output: &str) -> Option<f64> {
    match metric {
        MetricName::ExactMatch => Some(texts::exact_match(expected, output)),
        MetricName::TokenF1 => Some(texts::token_f1(expected, output)),
        MetricName::Rouge1 => Some(rouge::rouge_n(1, expected, output)),
        MetricName::Rouge2 => Some(rouge::rouge_n(2, expected, output)),
        MetricName::RougeL => Some(rouge::rouge_l(expected, output)),
        MetricName::Length => Some(texts::length(output)),
        MetricName::JsonValid => Some(texts::json_valid(output)),
        _ => None,
    }
}

fn bleu_column(rows: &[Texts<'_>], tokenizer: &Tokenizer13a) -> Column {
    let counts = rows.iter().map(|row| tokenizer.counts(row.expected, row.output).to_vec());
    let rows: Vec<Vec<f64>> = counts.collect();
    let scores = rows.iter().map(|counts| bleu::score(counts, true)).collect();
    Column {
        scores: Some(scores),
        tally: Tally::Sums { rows, value: |sums| bleu::score(sums, false) },
    }
}

fn chrf_column(rows: &[Texts<'_>]) -> Column {
    let counts = rows.iter().map(|row| chrf::counts(row.expected, row.output).to_vec());
    let rows: Vec<Vec<f64>> = counts.collect();
    let scores = rows.iter().map(|counts| chrf::score(counts)).collect();
    Column { scores: Some(scores), tally: Tally::Sums { rows, value: chrf::score } }
}

fn distinct_column(n: usize, rows: &[Texts<'_>]) -> Column {
    let mut numbers = Numbers::default();
    let mut of = |row: &Texts<'_>| -> Vec<u32> {
        let runs = texts::word_runs(n, row.output);
        runs.into_iter().map(|run| numbers.of(run.join("\u{1f}"))).collect()
    };
    let tally = Tally::Distinct(rows.iter().map(&mut of).collect());
    let scores = (0..rows.len()).map(|row| tally.value_of(&[row])).collect();
    Column { scores: Some(scores), tally }
}

fn label_column(rows: &[Texts<'_>]) -> Column {
    let mut numbers = Numbers::default();
    let mut of = |text: &str| numbers.of(text.trim().to_owned());
    let pairs = rows.iter().map(|row| [of(row.expected), of(row.output)]).collect();
    Column { scores: None, tally: Tally::Labels(pairs) }
}
