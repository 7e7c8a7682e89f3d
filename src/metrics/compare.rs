//! Two models' answers to the same prompts: differences of metrics with paired bootstrap intervals.
//!
//! Source: Koehn 2004, "Statistical significance tests for machine translation evaluation": each draw
//! takes the same samples of both sides.

use super::bleu::Tokenizer13a;
use super::columns::Prepared;
use super::tally::Tally;
use super::{Texts, bootstrap};
use crate::base::seed::Stream;
use crate::spec::metric::MetricName;
use serde::Serialize;
use std::collections::BTreeMap;

/// One side's answer to a prompt, with its scores by metric name.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// Prompt, expected answer and output.
    pub texts: Texts<'a>,
    /// Its own scores.
    pub scores: &'a BTreeMap<String, f64>,
}

/// How one metric differs between the sides.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// The metric.
    pub metric: String,
    /// Its value over the first side's answers.
    pub first: f64,
    /// Over the second's.
    pub second: f64,
    /// The second less the first.
    pub difference: f64,
    /// The 95% interval of the difference.
    pub interval: Option<[f64; 2]>,
}

/// The differences of every metric that both sides have scores of, over answers paired by place.
pub fn differences(
    first: &[Answer<'_>],
    second: &[Answer<'_>],
    seed: u64,
) -> Result<Vec<Difference>, super::Error> {
    let no_rule = |source| super::Error::Pattern { metric: "bleu".to_owned(), source };
    let tokenizer = Tokenizer13a::new().map_err(no_rule)?;
    let mut names: Vec<&String> = first.iter().flat_map(|answer| answer.scores.keys()).collect();
    names.sort();
    names.dedup();
    let mut found = Vec::new();
    for name in names {
        let sides = [tally(name, first, &tokenizer), tally(name, second, &tokenizer)];
        if let [Some(one), Some(two)] = sides {
            let (low, high) = (one.value(), two.value());
            let interval = interval(&one, &two, seed);
            let (metric, difference) = (name.clone(), high - low);
            found.push(Difference { metric, first: low, second: high, difference, interval });
        }
    }
    Ok(found)
}

/// The metric over one side: our own is computed again, since that of many texts is no mean of
/// single ones'; any other is the mean of its scores. None where a score is missing.
fn tally(name: &str, answers: &[Answer<'_>], tokenizer: &Tokenizer13a) -> Option<Tally> {
    let ours = MetricName::ALL.iter().find(|ours| ours.name() == name);
    if let Some(ours) = ours.filter(|ours| !ours.is_of_choices()) {
        let rows: Vec<Texts<'_>> = answers.iter().map(|answer| answer.texts).collect();
        return Prepared::Named(*ours).column(&rows, tokenizer).ok().map(|column| column.tally);
    }
    let scores = answers.iter().map(|answer| answer.scores.get(name).copied());
    scores.collect::<Option<Vec<f64>>>().map(Tally::mean)
}

fn interval(one: &Tally, two: &Tally, seed: u64) -> Option<[f64; 2]> {
    let samples = one.len();
    if samples < 2 || two.len() != samples {
        return None;
    }
    if let (Some(one_out), Some(two_out)) = (one.left_out(), two.left_out()) {
        let left_out: Vec<f64> = two_out.iter().zip(one_out).map(|(two, one)| two - one).collect();
        return Some(bootstrap::jackknife(two.value() - one.value(), &left_out));
    }
    let stream = Stream::new(seed, "bootstrap");
    let draw = |draw| {
        let chosen = bootstrap::chosen(&stream, draw, samples);
        two.value_of(&chosen) - one.value_of(&chosen)
    };
    let values = (0..bootstrap::DRAWS).map(draw).filter(|value| value.is_finite());
    bootstrap::interval(values.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_tell_more_than_two_intervals() {
        // Every answer is a little longer: sure, though the lengths themselves vary much.
        let outputs: Vec<[String; 2]> =
            (0..40).map(|row| [40 - row, 42 - row].map(|length| "x".repeat(length))).collect();
        let scores = BTreeMap::from([("length".to_owned(), 0.0)]);
        let side = |at: usize| -> Vec<Answer<'_>> {
            let texts = outputs.iter().map(|output| Texts {
                prompt: "",
                expected: "",
                output: &output[at],
            });
            texts.map(|texts| Answer { texts, scores: &scores }).collect()
        };
        let found = differences(&side(0), &side(1), 1).unwrap();
        assert_eq!((found[0].difference, found[0].interval), (2.0, Some([2.0, 2.0])));
    }
}
