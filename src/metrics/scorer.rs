//! The metrics of an evaluation: prepared before any work, then applied to all samples at once.

use super::bleu::Tokenizer13a;
use super::columns::{self, Column, Prepared};
use super::expression::{self, Expression};
use super::lexicon::{self, Lexicon};
use super::program::{self, Program};
use super::tally::Tally;
use super::{Likelihood, Texts, bootstrap};
use crate::spec::metric::{Metric, MetricName};
use regex::Regex;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Why a metric has no value.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No sample was given.
    #[error(
        "metric `{metric}` has no samples to score: the split or the task selects none \
         (see the stage's `split` and `task`)"
    )]
    NoSamples {
        /// The metric.
        metric: String,
    },
    /// The samples have no learned tokens.
    #[error(
        "metric `{metric}` has no tokens to score: no token of the samples is learned \
         (see `answer_only_loss` and the answer's template)"
    )]
    NoTokens {
        /// The metric.
        metric: String,
    },
    /// A pattern does not parse.
    #[error("metric `{metric}`")]
    Pattern {
        /// The metric.
        metric: String,
        /// What is wrong.
        source: regex::Error,
    },
    /// An expression is no score.
    #[error("metric `{metric}`")]
    Expression {
        /// The metric.
        metric: String,
        /// What is wrong.
        source: expression::Error,
    },
    /// A list of words cannot be used.
    #[error("metric `{metric}`")]
    Lexicon {
        /// The metric.
        metric: String,
        /// What is wrong.
        source: lexicon::Error,
    },
    /// A program gave no scores.
    #[error("the program of metric `{metric}` gave no scores")]
    Program {
        /// The metric.
        metric: String,
        /// What is wrong.
        source: program::Error,
    },
    /// A classifier gave no score.
    #[error("the classifier of metric `{metric}` gave no score")]
    Classifier {
        /// The metric.
        metric: String,
        /// What is wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A metric's file was not handed in.
    #[error("metric `{metric}` has no file: name one in the recipe")]
    NoFile {
        /// The metric.
        metric: String,
    },
}

/// What the metrics came to.
#[derive(Debug, Default)]
pub struct Results {
    /// Every metric's value, by name.
    pub values: BTreeMap<String, f64>,
    /// 95% bootstrap intervals, by name.
    pub intervals: BTreeMap<String, [f64; 2]>,
    /// Each generated sample's own scores, by name.
    pub rows: Vec<BTreeMap<String, f64>>,
    /// The metrics that failed; the others are whole.
    pub failures: Vec<Error>,
}

/// Metrics ready to be applied.
#[derive(Debug)]
pub struct Scorer {
    texts: Vec<(String, Prepared)>,
    programs: Vec<(String, Program)>,
    /// Metrics that a classifier computes, and whether it reads the prompt too.
    classifiers: Vec<(String, bool)>,
    /// Metrics that are computed from logits.
    forced: Vec<MetricName>,
    tokenizer: Tokenizer13a,
}

/// A classifier's score of a text, given the metric's name.
pub type Classify<'a> =
    dyn FnMut(&str, &str) -> Result<f64, Box<dyn std::error::Error + Send + Sync>> + 'a;

/// Where the samples are scored: who may stop it, who hears a program's stderr (the metric's name
/// and the line), and who classifies, since a metric sees no model.
pub struct Surroundings<'a> {
    /// Set from outside to end early.
    pub stop: &'a AtomicBool,
    /// Gets each line.
    pub hear: &'a mut dyn FnMut(&str, &str),
    /// Scores a text.
    pub classify: &'a mut Classify<'a>,
    /// Seed of the bootstrap.
    pub seed: u64,
}

impl Scorer {
    /// Prepares `metrics`; one that is named twice is computed once. `file` finds the files that
    /// they need: `N.lexicon` and `N.command.M` for metric N, both from 0.
    pub fn new(
        metrics: &[Metric],
        file: &dyn Fn(&str) -> Option<PathBuf>,
    ) -> Result<Scorer, Error> {
        let no_rule = |source| Error::Pattern { metric: "bleu".to_owned(), source };
        let tokenizer = Tokenizer13a::new().map_err(no_rule)?;
        let (texts, programs, classifiers) = (Vec::new(), Vec::new(), Vec::new());
        let mut scorer = Scorer { texts, programs, classifiers, forced: Vec::new(), tokenizer };
        let mut seen: Vec<&str> = Vec::new();
        for (number, metric) in metrics.iter().enumerate() {
            if !seen.contains(&metric.name()) {
                seen.push(metric.name());
                scorer.add(metric, &|name| file(&format!("{number}.{name}")))?;
            }
        }
        Ok(scorer)
    }

    fn add(
        &mut self,
        metric: &Metric,
        file: &dyn Fn(&str) -> Option<PathBuf>,
    ) -> Result<(), Error> {
        let name = metric.name().to_owned();
        let prepared = match metric {
            Metric::Named(forced) if forced.is_teacher_forced() => {
                self.forced.push(*forced);
                return Ok(());
            }
            Metric::Program { command, timeout, .. } => {
                let located =
                    |(place, word): (usize, &String)| match file(&format!("command.{place}")) {
                        Some(path) => path.to_string_lossy().into_owned(),
                        None => word.clone(),
                    };
                let command = command.iter().enumerate().map(located).collect();
                let patience = Duration::from_secs_f64(*timeout);
                self.programs.push((name, Program { command, patience }));
                return Ok(());
            }
            Metric::Classifier { with_prompt, .. } => {
                self.classifiers.push((name, *with_prompt));
                return Ok(());
            }
            Metric::Named(named) => Prepared::Named(*named),
            Metric::Regex { regex, .. } => {
                let pattern = Regex::new(regex);
                let wrong = |source| Error::Pattern { metric: name.clone(), source };
                Prepared::Pattern(Box::new(pattern.map_err(wrong)?))
            }
            Metric::Expression { expression, .. } => {
                let wrong = |source| Error::Expression { metric: name.clone(), source };
                Prepared::Expression(Box::new(Expression::parse(expression).map_err(wrong)?))
            }
            Metric::Lexicon { .. } => {
                let path = file("lexicon").ok_or_else(|| Error::NoFile { metric: name.clone() })?;
                let wrong = |source| Error::Lexicon { metric: name.clone(), source };
                Prepared::Lexicon(Lexicon::read(&path).map_err(wrong)?)
            }
        };
        self.texts.push((name, prepared));
        Ok(())
    }

    /// Whether any metric needs generated text.
    pub fn needs_text(&self) -> bool {
        !(self.texts.is_empty() && self.programs.is_empty() && self.classifiers.is_empty())
    }

    /// Whether any metric needs logits of the expected tokens.
    pub fn needs_likelihood(&self) -> bool {
        !self.forced.is_empty()
    }

    /// Applies every metric: those of texts to `rows`, those of logits to `likelihoods`, one for
    /// each sample. A metric that fails does not keep the others from their values.
    pub fn score(
        &self,
        rows: &[Texts<'_>],
        likelihoods: &[Likelihood],
        around: &mut Surroundings<'_>,
    ) -> Results {
        let mut results = Results { rows: vec![BTreeMap::new(); rows.len()], ..Results::default() };
        let mut columns: Vec<(String, Tally)> = Vec::new();
        let mut add = |name: &String, made: Result<Column, Error>| match made {
            Ok(column) => {
                for (row, score) in results.rows.iter_mut().zip(column.scores.iter().flatten()) {
                    row.insert(name.clone(), *score);
                }
                columns.push((name.clone(), column.tally));
            }
            Err(error) => results.failures.push(error),
        };
        for (name, prepared) in &self.texts {
            let column = prepared.column(rows, &self.tokenizer);
            let wrong = |source| Error::Expression { metric: name.clone(), source };
            add(name, not_empty(name, rows).and_then(|()| column.map_err(wrong)));
        }
        for (name, program) in &self.programs {
            let scores = not_empty(name, rows).and_then(|()| {
                let mut hear = |line: &str| (around.hear)(name, line);
                let scores = program.scores(rows, around.stop, &mut hear);
                scores.map_err(|source| Error::Program { metric: name.clone(), source })
            });
            add(name, scores.map(Column::of_mean));
        }
        for (name, with_prompt) in &self.classifiers {
            let scores = not_empty(name, rows);
            let scores = scores.and_then(|()| classified(name, *with_prompt, rows, around));
            add(name, scores.map(Column::of_mean));
        }
        results.settle(columns, around.seed);
        let forced = self.forced(likelihoods, &mut results.failures);
        results.settle(forced, around.seed);
        results
    }

    fn forced(
        &self,
        likelihoods: &[Likelihood],
        failures: &mut Vec<Error>,
    ) -> Vec<(String, Tally)> {
        let has_tokens = likelihoods.iter().any(|one| one.tokens > 0);
        let mut columns = Vec::new();
        for metric in &self.forced {
            let metric_name = metric.name().to_owned();
            if has_tokens {
                columns.push((metric_name, forced_tally(*metric, likelihoods)));
            } else {
                failures.push(Error::NoTokens { metric: metric_name });
            }
        }
        columns
    }
}

/// A classifier's score of every output, or of prompts and outputs.
fn classified(
    name: &str,
    with_prompt: bool,
    rows: &[Texts<'_>],
    around: &mut Surroundings<'_>,
) -> Result<Vec<f64>, Error> {
    let score = |row: &Texts<'_>| {
        let fail = |source| Error::Classifier { metric: name.to_owned(), source };
        if around.stop.load(Ordering::Relaxed) {
            return Err(fail("the run was stopped".into()));
        }
        let text =
            if with_prompt { [row.prompt, row.output].concat() } else { row.output.to_owned() };
        (around.classify)(name, &text).map_err(fail)
    };
    rows.iter().map(score).collect()
}

fn not_empty(name: &str, rows: &[Texts<'_>]) -> Result<(), Error> {
    if rows.is_empty() { Err(Error::NoSamples { metric: name.to_owned() }) } else { Ok(()) }
}

/// Sums over the samples, so that every token weighs the same.
fn forced_tally(metric: MetricName, likelihoods: &[Likelihood]) -> Tally {
    let numbers = |one: &Likelihood| match metric {
        MetricName::TokenAccuracy => vec![one.correct as f64, one.tokens as f64],
        MetricName::CompletionAccuracy => {
            vec![f64::from(u8::from(one.correct == one.tokens && one.tokens > 0)), 1.0]
        }
        _ => vec![one.loss_sum, one.tokens as f64],
    };
    let value: fn(&[f64]) -> f64 = match metric {
        MetricName::Perplexity => |sums| (sums[0] / sums[1]).exp(),
        _ => |sums| sums[0] / sums[1],
    };
    Tally::Sums { rows: likelihoods.iter().map(numbers).collect(), value }
}

impl Results {
    /// Values and intervals of metrics over the same samples.
    #[expect(clippy::needless_pass_by_value, reason = "they are settled with this")]
    pub(super) fn settle(&mut self, columns: Vec<(String, Tally)>, seed: u64) {
        let tallies: Vec<&Tally> = columns.iter().map(|(_, tally)| tally).collect();
        let intervals = bootstrap::intervals(&tallies, seed);
        for ((name, tally), interval) in columns.iter().zip(intervals) {
            self.values.insert(name.clone(), tally.value());
            self.intervals.extend(interval.map(|interval| (name.clone(), interval)));
        }
    }
}

/// The score of one generated text; none for a metric that is computed from logits or that only
/// many texts have.
pub fn score_text(metric: MetricName, expected: &str, output: &str) -> Option<f64> {
    columns::score_text(metric, expected, output)
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "these numbers are exact")]
mod tests {
    use super::*;

    fn score(metrics: &[MetricName], rows: &[Texts<'_>], forced: &[Likelihood]) -> Results {
        let metrics: Vec<Metric> = metrics.iter().copied().map(Metric::Named).collect();
        let stop = AtomicBool::new(false);
        let mut around = Surroundings {
            stop: &stop,
            hear: &mut |_, _| (),
            classify: &mut |_, _| Ok(0.0),
            seed: 1,
        };
        Scorer::new(&metrics, &|_| None).unwrap().score(rows, forced, &mut around)
    }

    #[test]
    fn text_metrics_are_means_over_samples() {
        let row = |output| Texts { prompt: "", expected: "act", output };
        let names = [MetricName::ExactMatch, MetricName::Length];
        let results = score(&names, &[row(" act\n"), row("body")], &[]);
        assert_eq!((results.values["exact_match"], results.values["length"]), (0.5, 4.5));
        assert_eq!((results.rows[0]["exact_match"], results.rows[0]["length"]), (1.0, 5.0));
        assert_eq!(results.intervals["exact_match"], [0.0, 1.0]);
    }

    #[test]
    fn every_token_weighs_the_same() {
        let forced = [
            Likelihood { loss_sum: 1.0, tokens: 1, correct: 1 },
            Likelihood { loss_sum: 5.0, tokens: 2, correct: 0 },
        ];
        let names = [
            MetricName::Loss,
            MetricName::Perplexity,
            MetricName::TokenAccuracy,
            MetricName::CompletionAccuracy,
        ];
        let values = score(&names, &[], &forced).values;
        assert_eq!(values["completion_accuracy"], 0.5, "the first is right in all its tokens");
        assert_eq!(
            (values["loss"], values["perplexity"], values["token_accuracy"]),
            (2.0, 2f64.exp(), 1.0 / 3.0)
        );
    }

    #[test]
    fn nothing_to_score_is_an_error_not_a_zero() {
        let texts = score(&[MetricName::TokenF1], &[], &[]);
        assert!(texts.failures[0].to_string().contains("`token_f1` has no samples"));
        let tokens = score(&[MetricName::Loss], &[], &[Likelihood::default()]);
        assert!(tokens.failures[0].to_string().contains("`loss` has no tokens"));
    }
}
