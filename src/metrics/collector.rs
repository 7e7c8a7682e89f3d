//! Gathers the metrics that a recipe names over the samples of an evaluation.

use super::likelihood::Likelihood;
use super::{rouge, texts};
use crate::spec::metric::MetricName;
use std::collections::BTreeMap;

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
        metric: &'static str,
    },
    /// The samples have no learned tokens.
    #[error(
        "metric `{metric}` has no tokens to score: no token of the samples is learned \
         (see `answer_only_loss` and the answer's template)"
    )]
    NoTokens {
        /// The metric.
        metric: &'static str,
    },
}

/// Running values of a set of metrics.
#[derive(Clone, Debug)]
pub struct Collector {
    /// Sum of the samples' scores for each metric of texts.
    sums: BTreeMap<MetricName, f64>,
    samples: u64,
    likelihood: Likelihood,
    /// The metrics asked for that are computed from logits.
    forced: Vec<MetricName>,
}

impl Collector {
    /// Collects `metrics`; one that is named twice is computed once.
    pub fn new(metrics: &[MetricName]) -> Collector {
        let (forced, of_text): (Vec<_>, Vec<_>) =
            metrics.iter().copied().partition(|metric| metric.is_teacher_forced());
        let sums = of_text.into_iter().map(|metric| (metric, 0.0)).collect();
        Collector { sums, samples: 0, likelihood: Likelihood::default(), forced }
    }

    /// Whether any metric needs generated text.
    pub fn needs_text(&self) -> bool {
        !self.sums.is_empty()
    }

    /// Whether any metric needs logits of the expected tokens.
    pub fn needs_likelihood(&self) -> bool {
        !self.forced.is_empty()
    }

    /// Scores one generated text and returns this sample's own scores by metric name.
    pub fn add_text(&mut self, expected: &str, output: &str) -> BTreeMap<&'static str, f64> {
        self.samples += 1;
        let score = |(metric, sum): (&MetricName, &mut f64)| {
            let value = score_text(*metric, expected, output)?;
            *sum += value;
            Some((metric.name(), value))
        };
        self.sums.iter_mut().filter_map(score).collect()
    }

    /// Adds the likelihood of expected tokens.
    pub fn add_likelihood(&mut self, likelihood: Likelihood) {
        self.likelihood += likelihood;
    }

    /// Every metric's value: the mean over samples of text scores, token-weighted for the others.
    pub fn finish(&self) -> Result<BTreeMap<String, f64>, Error> {
        let mut values = BTreeMap::new();
        for (metric, sum) in &self.sums {
            if self.samples == 0 {
                return Err(Error::NoSamples { metric: metric.name() });
            }
            values.insert(metric.name().to_owned(), sum / self.samples as f64);
        }
        for metric in &self.forced {
            let value = forced_value(*metric, &self.likelihood);
            let value = value.ok_or(Error::NoTokens { metric: metric.name() })?;
            values.insert(metric.name().to_owned(), value);
        }
        Ok(values)
    }
}

/// The score of one generated text; none for a metric that is computed from logits.
pub fn score_text(metric: MetricName, expected: &str, output: &str) -> Option<f64> {
    match metric {
        MetricName::ExactMatch => Some(texts::exact_match(expected, output)),
        MetricName::TokenF1 => Some(texts::token_f1(expected, output)),
        MetricName::Rouge1 => Some(rouge::rouge_n(1, expected, output)),
        MetricName::Rouge2 => Some(rouge::rouge_n(2, expected, output)),
        MetricName::RougeL => Some(rouge::rouge_l(expected, output)),
        MetricName::Length => Some(texts::length(output)),
        MetricName::Loss | MetricName::Perplexity | MetricName::TokenAccuracy => None,
    }
}

fn forced_value(metric: MetricName, likelihood: &Likelihood) -> Option<f64> {
    match metric {
        MetricName::Loss => likelihood.loss(),
        MetricName::Perplexity => likelihood.perplexity(),
        MetricName::TokenAccuracy => likelihood.token_accuracy(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_metrics_are_means_over_samples() {
        let mut collector = Collector::new(&[MetricName::ExactMatch, MetricName::Length]);
        let row = collector.add_text("act", " act\n");
        assert_eq!(row, BTreeMap::from([("exact_match", 1.0), ("length", 5.0)]));
        collector.add_text("act", "body");
        let values = collector.finish().expect("two samples");
        assert_eq!((values["exact_match"], values["length"]), (0.5, 4.5));
        assert!(collector.needs_text() && !collector.needs_likelihood());
    }

    #[test]
    fn nothing_to_score_is_an_error_not_a_zero() {
        let texts = Collector::new(&[MetricName::TokenF1]).finish().unwrap_err();
        assert!(texts.to_string().contains("`token_f1` has no samples"), "{texts}");
        let tokens = Collector::new(&[MetricName::Loss]).finish().unwrap_err();
        assert!(tokens.to_string().contains("`loss` has no tokens"), "{tokens}");
    }
}
