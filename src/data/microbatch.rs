//! What one forward pass takes: the tokens of a few sequences, end to end, without padding.

use super::sequences::Sequence;

/// Tokens of one forward pass; plain numbers, so that this room knows no tensors.
///
/// All vectors but `segments` have one entry per token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MicroBatch {
    /// Input ids.
    pub tokens: Vec<u32>,
    /// The token that follows each input within its sample.
    pub labels: Vec<u32>,
    /// Whether the label is learned.
    pub loss_mask: Vec<bool>,
    /// Position of each token in its segment, from 0.
    pub positions: Vec<u32>,
    /// Starts of the segments and the end of the last: the first entry is 0, the last is the number
    /// of tokens. Attention is causal within a segment and sees nothing outside it.
    pub segments: Vec<usize>,
    /// A number that no other token of the run has: the sequence's sample number × `seq_length` +
    /// the token's offset in the sequence. It addresses random numbers (dropout).
    pub global_positions: Vec<u64>,
    /// Number of training sequences.
    pub sequences: usize,
}

impl MicroBatch {
    /// Puts `sequences` end to end, each with its sample number in the run; `seq_length` is the
    /// longest that a sequence can be.
    pub fn assemble(sequences: &[(u64, Sequence)], seq_length: usize) -> MicroBatch {
        let mut batch =
            MicroBatch { segments: vec![0], sequences: sequences.len(), ..MicroBatch::default() };
        for (number, sequence) in sequences {
            let start = batch.tokens.len();
            let first = number * seq_length as u64;
            batch.global_positions.extend((0..sequence.tokens.len() as u64).map(|at| first + at));
            batch.tokens.extend_from_slice(&sequence.tokens);
            batch.labels.extend_from_slice(&sequence.labels);
            batch.loss_mask.extend_from_slice(&sequence.loss_mask);
            batch.positions.extend_from_slice(&sequence.positions);
            batch.segments.extend(sequence.segments.iter().skip(1).map(|at| start + at));
        }
        batch
    }

    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether there is no token.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Places of the tokens whose labels are learned, in order.
    pub fn learned(&self) -> Vec<u32> {
        let places = (0u32..).zip(&self.loss_mask);
        places.filter(|(_, learned)| **learned).map(|(place, _)| place).collect()
    }

    /// Number of learned labels.
    pub fn learned_count(&self) -> usize {
        self.loss_mask.iter().filter(|learned| **learned).count()
    }
}
