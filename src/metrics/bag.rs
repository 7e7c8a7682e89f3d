//! Bags of words or n-grams, and the F-measure of their overlap.

use std::collections::BTreeMap;

/// How often each item occurs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bag<T> {
    counts: BTreeMap<T, usize>,
    len: usize,
}

impl<T: Ord> FromIterator<T> for Bag<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Bag<T> {
        let mut bag = Bag { counts: BTreeMap::new(), len: 0 };
        for item in items {
            *bag.counts.entry(item).or_default() += 1;
            bag.len += 1;
        }
        bag
    }
}

impl<T: Ord> Bag<T> {
    /// Number of items, repeated ones counted each time.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Number of items in both bags: for each the smaller of its two counts, summed.
    pub fn overlap(&self, other: &Bag<T>) -> usize {
        let smaller = |(item, count): (&T, &usize)| other.counts.get(item).map(|c| *c.min(count));
        self.counts.iter().filter_map(smaller).sum()
    }
}

/// The F-measure (harmonic mean) of precision `overlap / output` and recall `overlap / expected`.
///
/// It is 0 when nothing overlaps, so an empty side needs no case of its own.
pub fn f_measure(overlap: usize, expected: usize, output: usize) -> f64 {
    if overlap == 0 {
        return 0.0;
    }
    let precision = overlap as f64 / output as f64;
    let recall = overlap as f64 / expected as f64;
    2.0 * precision * recall / (precision + recall)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlap_counts_repeated_items_once_for_each_pair() {
        let left: Bag<_> = "a a b c".split(' ').collect();
        let right: Bag<_> = "a b b d a a".split(' ').collect();
        assert_eq!((left.overlap(&right), right.overlap(&left)), (3, 3));
        assert_eq!((left.len(), right.len()), (4, 6));
    }

    #[test]
    fn the_f_measure_is_the_harmonic_mean() {
        assert!((f_measure(3, 4, 6) - 0.6).abs() < 1e-15);
        assert!(f_measure(0, 0, 0).abs() < f64::EPSILON);
    }
}
