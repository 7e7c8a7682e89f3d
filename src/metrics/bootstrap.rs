//! Confidence intervals by the bootstrap: the samples are drawn again with replacement, many times.
//!
//! Source: Efron and Tibshirani 1993, "An introduction to the bootstrap", chapter 13 (percentile
//! intervals); Koehn 2004, "Statistical significance tests for machine translation evaluation".
//! Where a sample that is drawn twice would change what is measured, the jackknife takes its place:
//! each sample is left out once (Efron and Stein 1981, "The jackknife estimate of variance", who show
//! that it errs towards wider intervals).

use super::tally::Tally;
use crate::base::seed::Stream;

/// Times that the samples are drawn.
pub const DRAWS: usize = 1000;
/// What the interval leaves out on each side.
const TAIL: f64 = 0.025;
/// The same in standard deviations of a normal distribution.
const NORMAL: f64 = 1.959_964;

/// The samples of draw `draw`, as many as there are: the same ones for every metric and every run.
pub fn chosen(stream: &Stream, draw: usize, samples: usize) -> Vec<usize> {
    let one = |at: usize| {
        let word = stream.word((draw * samples + at) as u64);
        ((u128::from(word) * samples as u128) >> 64) as usize
    };
    (0..samples).map(one).collect()
}

/// 95% percentile intervals of several metrics over the same samples; none for a metric that cannot be
/// drawn again or whose value is not a number in most draws, or when there are fewer than two samples.
pub fn intervals(tallies: &[&Tally], seed: u64) -> Vec<Option<[f64; 2]>> {
    let samples = tallies.first().map_or(0, |tally| tally.len());
    if samples < 2 {
        return vec![None; tallies.len()];
    }
    let stream = Stream::new(seed, "bootstrap");
    let mut values = vec![Vec::with_capacity(DRAWS); tallies.len()];
    for draw in 0..DRAWS {
        let chosen = chosen(&stream, draw, samples);
        let drawn = values.iter_mut().zip(tallies).filter(|(_, tally)| tally.can_be_drawn_again());
        for (values, tally) in drawn {
            values.extend(Some(tally.value_of(&chosen)).filter(|value| value.is_finite()));
        }
    }
    let ends = |(values, tally): (Vec<f64>, &&Tally)| match tally.left_out() {
        Some(left_out) => Some(jackknife(tally.value(), &left_out)),
        None => interval(values),
    };
    values.into_iter().zip(tallies).map(ends).collect()
}

/// The 95% normal interval around `value` by the jackknife's variance, given the values without
/// each of the samples.
pub fn jackknife(value: f64, left_out: &[f64]) -> [f64; 2] {
    let count = left_out.len() as f64;
    let mean = left_out.iter().sum::<f64>() / count;
    let squares: f64 = left_out.iter().map(|one| (one - mean).powi(2)).sum();
    let reach = NORMAL * (squares * (count - 1.0) / count).sqrt();
    [value - reach, value + reach]
}

/// The interval that leaves out [`TAIL`] of `values` on each side.
pub fn interval(mut values: Vec<f64>) -> Option<[f64; 2]> {
    values.sort_by(f64::total_cmp);
    (values.len() > DRAWS / 2).then(|| [quantile(&values, TAIL), quantile(&values, 1.0 - TAIL)])
}

/// The value below which `share` of the sorted `values` lie, between two neighbours by proportion.
#[expect(clippy::cast_sign_loss, reason = "shares lie in 0..=1")]
fn quantile(values: &[f64], share: f64) -> f64 {
    let place = share * (values.len() - 1) as f64;
    let low = place.floor() as usize;
    let high = (low + 1).min(values.len() - 1);
    values[low] + (values[high] - values[low]) * (place - low as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_of_a_share_is_the_textbooks() {
        // 150 hits of 500: .3 ± 1.96 sqrt(.3 · .7 / 500) = .3 ± .0402.
        let tally = Tally::mean((0..500).map(|sample| f64::from(u8::from(sample < 150))));
        let [low, high] = intervals(&[&tally], 1)[0].unwrap();
        assert!((low - 0.2598).abs() < 0.006 && (high - 0.3402).abs() < 0.006, "{low} {high}");
        assert_eq!(intervals(&[&tally], 1), intervals(&[&tally], 1));
        assert_eq!(intervals(&[&Tally::mean([1.0])], 1), [None]);
    }

    #[test]
    fn the_jackknife_of_a_mean_is_the_textbooks() {
        // Of a mean it is s / sqrt(n) exactly: 1..=9 have s² = 7.5.
        let left_out: Vec<f64> = (1..=9).map(|one| (45.0 - f64::from(one)) / 8.0).collect();
        let [low, high] = jackknife(5.0, &left_out);
        let reach = NORMAL * (7.5_f64 / 9.0).sqrt();
        assert!((high - 5.0 - reach).abs() < 1e-12 && (5.0 - low - reach).abs() < 1e-12);
    }

    #[test]
    fn the_interval_of_different_words_holds_their_share() {
        // Half of each text is its own, half is everybody's.
        let rows =
            (0..50).map(|row| (0..10).map(move |at| if at < 5 { at } else { 10 * row + at }));
        let tally = Tally::Distinct(rows.map(Iterator::collect).collect());
        let [low, high] = intervals(&[&tally], 1)[0].unwrap();
        assert!(low <= tally.value() && tally.value() <= high && high - low < 0.05, "{low} {high}");
    }
}
