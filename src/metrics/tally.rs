//! One metric over many samples: what each adds, and the value of any choice of them.
//!
//! A value is a function of the samples chosen, so that the bootstrap can choose again.

use std::collections::BTreeMap;

/// What every sample adds to one metric.
#[derive(Clone, Debug)]
pub enum Tally {
    /// Numbers that are summed over the samples, and what is made of the sums.
    Sums {
        /// A few numbers for each sample, all of one length.
        rows: Vec<Vec<f64>>,
        /// The metric of the sums.
        value: fn(&[f64]) -> f64,
    },
    /// n-grams by number: the share of different ones among all (distinct-n).
    Distinct(Vec<Vec<u32>>),
    /// The expected label and the given one by number: F1 averaged over the labels (macro F1).
    Labels(Vec<[u32; 2]>),
}

/// Gives each different item a number.
#[derive(Clone, Debug)]
pub struct Numbers<T>(BTreeMap<T, u32>);

impl<T> Default for Numbers<T> {
    fn default() -> Self {
        Numbers(BTreeMap::new())
    }
}

impl<T: Ord> Numbers<T> {
    /// The item's number: that of its first appearance.
    pub fn of(&mut self, item: T) -> u32 {
        let next = self.0.len() as u32;
        *self.0.entry(item).or_insert(next)
    }
}

impl Tally {
    /// A mean of one score for each sample.
    pub fn mean(scores: impl IntoIterator<Item = f64>) -> Tally {
        let rows = scores.into_iter().map(|score| vec![score, 1.0]).collect();
        Tally::Sums { rows, value: |sums| sums[0] / sums[1] }
    }

    /// Whether drawing samples again tells how the value varies: not of distinct-n, which a sample
    /// that is drawn twice makes smaller.
    pub fn can_be_drawn_again(&self) -> bool {
        !matches!(self, Tally::Distinct(_))
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        match self {
            Tally::Sums { rows, .. } => rows.len(),
            Tally::Distinct(rows) => rows.len(),
            Tally::Labels(rows) => rows.len(),
        }
    }

    /// Whether there are no samples.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The metric of all samples.
    pub fn value(&self) -> f64 {
        self.value_of(&(0..self.len()).collect::<Vec<_>>())
    }

    /// The metric of the samples at `chosen`, which may name a sample more than once.
    pub fn value_of(&self, chosen: &[usize]) -> f64 {
        match self {
            Tally::Sums { rows, value } => {
                let mut sums = vec![0.0; rows.first().map_or(0, Vec::len)];
                for row in chosen {
                    sums.iter_mut().zip(&rows[*row]).for_each(|(sum, one)| *sum += one);
                }
                value(&sums)
            }
            Tally::Distinct(rows) => distinct(rows, chosen),
            Tally::Labels(rows) => macro_f1(rows, chosen),
        }
    }

    /// The metric without each of the samples in turn, where drawing samples again would mislead:
    /// a sample that is drawn twice makes texts look less different than they are.
    pub fn left_out(&self) -> Option<Vec<f64>> {
        let Tally::Distinct(rows) = self else { return None };
        let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
        for item in rows.iter().flatten() {
            *counts.entry(*item).or_default() += 1;
        }
        let all: usize = rows.iter().map(Vec::len).sum();
        let without = |row: &Vec<u32>| {
            let mut own: BTreeMap<u32, usize> = BTreeMap::new();
            for item in row {
                *own.entry(*item).or_default() += 1;
            }
            let only_here = own.iter().filter(|(item, count)| counts[*item] == **count).count();
            let left = all - row.len();
            if left == 0 { 0.0 } else { (counts.len() - only_here) as f64 / left as f64 }
        };
        Some(rows.iter().map(without).collect())
    }
}

/// Different items divided by all; 0 without items.
fn distinct(rows: &[Vec<u32>], chosen: &[usize]) -> f64 {
    let most = rows.iter().flatten().max().map_or(0, |most| *most as usize + 1);
    let mut seen = vec![false; most];
    let (mut different, mut all) = (0usize, 0usize);
    for item in chosen.iter().flat_map(|row| &rows[*row]) {
        all += 1;
        different += usize::from(!std::mem::replace(&mut seen[*item as usize], true));
    }
    if all == 0 { 0.0 } else { different as f64 / all as f64 }
}

/// Mean over the labels that occur, expected or given, of `2 tp / (2 tp + fp + fn)`.
fn macro_f1(rows: &[[u32; 2]], chosen: &[usize]) -> f64 {
    let mut labels: BTreeMap<u32, [f64; 2]> = BTreeMap::new();
    for row in chosen {
        let [expected, given] = rows[*row];
        // Hits count twice, once for each side; the second number counts both sides.
        labels.entry(expected).or_default()[1] += 1.0;
        labels.entry(given).or_default()[1] += 1.0;
        if expected == given {
            labels.entry(given).or_default()[0] += 2.0;
        }
    }
    let scores: f64 = labels.values().map(|[hits, all]| hits / all).sum();
    if labels.is_empty() { 0.0 } else { scores / labels.len() as f64 }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "these numbers are exact")]
mod tests {
    use super::*;

    #[test]
    fn a_choice_may_name_a_sample_twice() {
        let tally = Tally::mean([1.0, 0.0, 5.0]);
        assert_eq!((tally.value(), tally.value_of(&[2, 2, 1])), (2.0, 10.0 / 3.0));
        let distinct = Tally::Distinct(vec![vec![0, 1, 0], vec![2], vec![]]);
        assert_eq!((distinct.value(), distinct.value_of(&[0, 0])), (0.75, 2.0 / 6.0));
        assert_eq!(distinct.value_of(&[2]), 0.0);
        let left_out: Vec<_> = [[1, 2], [0, 2], [0, 1]].map(|rest| distinct.value_of(&rest)).into();
        assert_eq!((distinct.left_out(), tally.left_out()), (Some(left_out), None));
    }
}
