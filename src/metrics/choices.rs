//! Multiple choice by log-likelihood, as lm-evaluation-harness scores it.
//!
//! Source: Gao et al., `lm_eval/api/task.py` (`acc`, `acc_norm`, `acc_bytes`): the model's answer is
//! the choice whose tokens have the largest summed log-probability after the prompt, as it is or
//! divided by the choice's characters (Python's `len`) or bytes, without the delimiter before it. The
//! first of equals is taken.

use super::columns::Column;
use super::scorer::Results;
use crate::spec::metric::{Metric, MetricName};
use std::collections::BTreeMap;

/// One row: its choices, what the model made of each, and the right one.
#[derive(Clone, Copy, Debug)]
pub struct Judged<'a> {
    /// The choices' texts.
    pub choices: &'a [String],
    /// Summed log-probability of each, in nats.
    pub log_likelihoods: &'a [f64],
    /// The number of the right one, from 0.
    pub answer: usize,
}

impl Judged<'_> {
    /// The number of the model's choice by the rule of `metric`; none for a metric of other things
    /// and for rows without choices.
    pub fn chosen(&self, metric: MetricName) -> Option<usize> {
        let length = |choice: &String| match metric {
            MetricName::Acc => Some(1),
            MetricName::AccNorm => Some(choice.chars().count()),
            MetricName::AccBytes => Some(choice.len()),
            _ => None,
        };
        let mut best: Option<(usize, f64)> = None;
        for (number, (choice, sum)) in self.choices.iter().zip(self.log_likelihoods).enumerate() {
            let score = sum / length(choice)? as f64;
            if best.is_none_or(|(_, largest)| score > largest) {
                best = Some((number, score));
            }
        }
        best.map(|(number, _)| number)
    }
}

/// The accuracies of `metrics` over `rows`, each row's own included; other metrics are passed over.
pub fn score(metrics: &[Metric], rows: &[Judged<'_>], seed: u64) -> Results {
    let mut results = Results { rows: vec![BTreeMap::new(); rows.len()], ..Results::default() };
    let mut columns = Vec::new();
    for metric in metrics {
        let Metric::Named(name) = metric else { continue };
        let hit = |row: &Judged<'_>| {
            row.chosen(*name).map(|chosen| f64::from(u8::from(chosen == row.answer)))
        };
        let Some(scores) = rows.iter().map(hit).collect::<Option<Vec<f64>>>() else { continue };
        for (row, score) in results.rows.iter_mut().zip(&scores) {
            row.insert(name.name().to_owned(), *score);
        }
        columns.push((name.name().to_owned(), Column::of_mean(scores).tally));
    }
    results.settle(columns, seed);
    results
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(choices: &[&str], log_likelihoods: &[f64]) -> [Option<usize>; 3] {
        let choices: Vec<String> = choices.iter().map(|text| (*text).to_owned()).collect();
        let row = Judged { choices: &choices, log_likelihoods, answer: 0 };
        [MetricName::Acc, MetricName::AccNorm, MetricName::AccBytes].map(|name| row.chosen(name))
    }

    #[test]
    fn lengths_decide_between_long_and_short_choices() {
        // -4 / 2 = -2 and -6 / 6 = -1: the longer one by letter.
        assert_eq!(chosen(&["no", "indeed"], &[-4.0, -6.0]), [Some(0), Some(1), Some(1)]);
        // Four letters each; eight bytes against four: -6 / 8 = -.75 and -5 / 4 = -1.25.
        assert_eq!(chosen(&["чаща", "wood"], &[-6.0, -5.0]), [Some(1), Some(1), Some(0)]);
        assert_eq!(chosen(&["a", "b"], &[-1.0, -1.0]), [Some(0); 3], "the first of equals");
    }

    #[test]
    fn accuracies_are_shares_of_rows() {
        let choices = ["no".to_owned(), "indeed".to_owned()];
        let row = |answer| Judged { choices: &choices, log_likelihoods: &[-4.0, -6.0], answer };
        let metrics = [MetricName::Acc, MetricName::AccNorm].map(Metric::Named);
        let results = score(&metrics, &[row(0), row(0), row(0), row(1)], 1);
        assert_eq!((results.values["acc"], results.values["acc_norm"]), (0.75, 0.25));
        assert_eq!((results.rows[3]["acc"], results.rows[3]["acc_norm"]), (0.0, 1.0));
        assert_eq!(results.intervals.len(), 2);
    }
}
