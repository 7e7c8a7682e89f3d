//! A training sequence by its index, read from shards.

use super::indexed::{Error, IndexedFile};
use crate::spec::job::Split;
use std::path::Path;

/// One training sequence: inputs, the labels they predict, and where its samples lie.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sequence {
    /// Input ids.
    pub tokens: Vec<u32>,
    /// The token that follows each input within its sample.
    pub labels: Vec<u32>,
    /// Whether the label is learned.
    pub loss_mask: Vec<bool>,
    /// Position of each token in its segment, from 0.
    pub positions: Vec<u32>,
    /// Starts of the segments and the end of the last: the first entry is 0, the last is the number
    /// of tokens.
    pub segments: Vec<usize>,
}

impl Sequence {
    /// A sequence without tokens.
    pub fn new() -> Sequence {
        Sequence { segments: vec![0], ..Sequence::default() }
    }

    /// Appends a sample as a segment of its own: all ids but the last are inputs, all but the first
    /// are labels (`gpt_sft_dataset.py`: `tokens = ids[:-1]`, `labels = ids[1:]`).
    ///
    /// `learned` says of each id whether it is learned as a label. A sample of fewer than two ids
    /// predicts nothing and adds nothing.
    pub fn push_sample(&mut self, ids: &[u32], learned: &[bool]) {
        let (Some((_, inputs)), Some((_, labels))) = (ids.split_last(), ids.split_first()) else {
            return;
        };
        if inputs.is_empty() {
            return;
        }
        self.tokens.extend_from_slice(inputs);
        self.labels.extend_from_slice(labels);
        self.loss_mask.extend(learned.iter().skip(1));
        self.positions.extend(0..inputs.len() as u32);
        self.segments.push(self.tokens.len());
    }
}

/// Training sequences by index.
pub trait Sequences: Send + Sync {
    /// How many there are.
    fn count(&self) -> usize;

    /// The sequence at `index`, which is below [`count`](Sequences::count).
    fn sequence(&self, index: usize) -> Result<Sequence, Error>;
}

/// A split of a shard stage's output: a document is a training sequence, its sequences are the
/// samples in it.
#[derive(Debug)]
pub struct Shards(IndexedFile);

impl Shards {
    /// Opens a split in `folder`.
    pub fn open(folder: &Path, split: Split) -> Result<Shards, Error> {
        Ok(Shards(IndexedFile::open(&folder.join(split.name()))?))
    }
}

impl Sequences for Shards {
    fn count(&self) -> usize {
        self.0.documents()
    }

    fn sequence(&self, index: usize) -> Result<Sequence, Error> {
        let mut sequence = Sequence::new();
        for sample in self.0.document(index) {
            sequence.push_sample(&self.0.sequence(sample)?, &self.0.sequence_mask(sample)?);
        }
        Ok(sequence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_predicts_each_of_its_tokens_but_the_first() {
        let mut sequence = Sequence::new();
        sequence.push_sample(&[5, 6, 7, 0], &[false, false, true, true]);
        sequence.push_sample(&[9], &[true]);
        sequence.push_sample(&[8, 0], &[false, true]);
        assert_eq!(sequence.tokens, [5, 6, 7, 8]);
        assert_eq!(sequence.labels, [6, 7, 0, 0]);
        assert_eq!(sequence.loss_mask, [false, true, true, true]);
        assert_eq!(sequence.positions, [0, 1, 2, 0]);
        assert_eq!(sequence.segments, [0, 3, 4]);
    }
}
