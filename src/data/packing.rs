//! Puts short samples together into training sequences.
//!
//! Samples are shuffled by the seed and taken in windows; within a window the longest goes first,
//! each into the fullest sequence that has room (best fit decreasing). Windows keep a sequence from
//! holding only samples of one length, and cost one half-filled sequence each.

use crate::base::seed::Stream;
use std::collections::BTreeMap;

/// Samples of a window.
const WINDOW: usize = 8192;

/// Samples by training sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packing {
    /// Indices of the samples in each sequence.
    pub sequences: Vec<Vec<usize>>,
    /// Share of the room that is filled, in millionths, so that it can be compared exactly.
    pub efficiency_millionths: u64,
}

/// Packs samples into sequences of at most `capacity` inputs.
///
/// `lengths` are ids per sample; a sample takes one input less, since its last id is only a label.
/// A sample longer than that gets a sequence of its own. No sample is split, none is left out.
pub fn pack(lengths: &[usize], capacity: usize, seed: u64) -> Packing {
    let order = Stream::new(seed, "packing/samples").permutation(lengths.len());
    let mut sequences = Vec::new();
    for window in order.chunks(WINDOW) {
        pack_window(window, lengths, capacity, &mut sequences);
    }
    // From long to short within each window: mix, for readers that do not shuffle.
    let order = Stream::new(seed, "packing/sequences").permutation(sequences.len());
    let sequences: Vec<Vec<usize>> =
        order.into_iter().map(|at| std::mem::take(&mut sequences[at])).collect();
    let efficiency_millionths = efficiency(lengths, capacity, sequences.len());
    Packing { sequences, efficiency_millionths }
}

/// One sample per sequence, in order.
pub fn apart(lengths: &[usize], capacity: usize) -> Packing {
    let sequences: Vec<Vec<usize>> = (0..lengths.len()).map(|sample| vec![sample]).collect();
    let efficiency_millionths = efficiency(lengths, capacity, sequences.len());
    Packing { sequences, efficiency_millionths }
}

fn pack_window(
    window: &[usize],
    lengths: &[usize],
    capacity: usize,
    sequences: &mut Vec<Vec<usize>>,
) {
    let mut window = window.to_vec();
    // Stable: samples of one length stay in shuffled order.
    window.sort_by_key(|sample| std::cmp::Reverse(lengths[*sample]));
    // Sequences of this window by the room they have left.
    let mut open: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for sample in window {
        let needed = inputs(lengths[sample]);
        let fitting = open.range(needed..).next().map(|(room, _)| *room);
        let found = fitting.and_then(|room| Some((room, take(&mut open, room)?)));
        let (room, sequence) = found.unwrap_or_else(|| {
            sequences.push(Vec::new());
            (capacity.max(needed), sequences.len() - 1)
        });
        sequences[sequence].push(sample);
        open.entry(room - needed).or_default().push(sequence);
    }
}

/// Removes a sequence with this much room.
fn take(open: &mut BTreeMap<usize, Vec<usize>>, room: usize) -> Option<usize> {
    let sequences = open.get_mut(&room)?;
    let sequence = sequences.pop();
    if sequences.is_empty() {
        open.remove(&room);
    }
    sequence
}

/// Inputs of a sample with this many ids.
fn inputs(length: usize) -> usize {
    length.saturating_sub(1)
}

fn efficiency(lengths: &[usize], capacity: usize, sequences: usize) -> u64 {
    let filled: u128 = lengths.iter().map(|length| inputs(*length) as u128).sum();
    let room = capacity as u128 * sequences as u128;
    (filled * 1_000_000).checked_div(room).unwrap_or_default() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_sample_stands_once_and_fits(
            lengths in prop::collection::vec(2usize..40, 0..400),
            capacity in 39usize..100,
            seed: u64,
        ) {
            let packing = pack(&lengths, capacity, seed);
            let mut all: Vec<_> = packing.sequences.concat();
            all.sort_unstable();
            prop_assert_eq!(all, (0..lengths.len()).collect::<Vec<_>>());
            for sequence in &packing.sequences {
                let filled: usize = sequence.iter().map(|sample| lengths[*sample] - 1).sum();
                prop_assert!(filled <= capacity && !sequence.is_empty());
            }
            // Any two sequences of best fit hold more than one can: at most twice the least.
            let needed: usize = lengths.iter().map(|length| length - 1).sum();
            prop_assert!(packing.sequences.len() <= 2 * needed.div_ceil(capacity));
            prop_assert_eq!(packing, pack(&lengths, capacity, seed));
        }
    }

    #[test]
    fn the_seed_changes_the_order_and_short_samples_fill_sequences() {
        let lengths: Vec<usize> = (0..5000).map(|at| 5 + at * 7 % 60).collect();
        let packing = pack(&lengths, 256, 1);
        assert!(packing.efficiency_millionths > 990_000, "{}", packing.efficiency_millionths);
        assert_ne!(packing, pack(&lengths, 256, 2));
        assert!(apart(&lengths, 256).efficiency_millionths < 200_000);
    }
}
