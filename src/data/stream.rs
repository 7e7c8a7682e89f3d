//! Training sequences cut from one stream of tokens: documents end to end, as for pretraining.
//!
//! Source: Megatron-LM `gpt_dataset.py` and NeMo 1.x `dataset_utils.py`
//! (`get_train_valid_test_split_`, `get_ltor_masks_and_position_ids`). A sequence is a window of
//! `seq_length + 1` tokens over the documents of a split; windows share one token, which is the
//! last label of one and the first input of the next. The order is ours (see
//! [`super::sampler`]), not Megatron's numpy shuffle.

use super::indexed::{Error as IndexedError, IndexedFile, with_extension};
use super::sequences::{Sequence, Sequences};
use std::ops::Range;
use std::sync::Arc;

/// Why a token file cannot be used as a stream.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Documents do not end with one token.
    #[error(
        "documents of `{prefix}` do not all end with the same token, so the end-of-document token \
         is unknown: write them with --append-eod, or set model.data.reset_position_ids, \
         reset_attention_mask and eod_mask_loss to false"
    )]
    NoEndOfDocument {
        /// The file without its extension.
        prefix: String,
    },
}

/// How windows are treated (`model.data`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamOptions {
    /// Inputs per sequence.
    pub seq_length: usize,
    /// Restart positions after each end-of-document token.
    pub reset_position_ids: bool,
    /// Attend within documents only.
    pub reset_attention_mask: bool,
    /// Do not learn from positions whose input is the end-of-document token.
    pub eod_mask_loss: bool,
}

impl StreamOptions {
    fn need_end_of_document(&self) -> bool {
        self.reset_position_ids || self.reset_attention_mask || self.eod_mask_loss
    }
}

/// A range of documents as windows.
#[derive(Debug)]
pub struct TokenStream {
    file: Arc<IndexedFile>,
    options: StreamOptions,
    end_of_document: Option<u32>,
    /// The sequences of the documents.
    sequences: Range<usize>,
    /// Tokens before each of them, and after the last.
    starts: Vec<u64>,
}

/// At most so many documents are looked at to find out how documents end.
const LOOKED_AT: usize = 1000;

impl TokenStream {
    /// The windows over `documents` of `file`.
    ///
    /// The end-of-document token is needed by three of the options; it is the token with which the
    /// documents end (up to 1000 of them, evenly spaced, are looked at).
    pub fn new(
        file: Arc<IndexedFile>,
        documents: Range<usize>,
        options: StreamOptions,
    ) -> Result<TokenStream, Error> {
        let end_of_document =
            if options.need_end_of_document() { Some(last_token(&file)?) } else { None };
        let first = file.document(documents.start).start;
        let last = documents.end.checked_sub(1).map_or(first, |last| file.document(last).end);
        let sequences = if documents.is_empty() { 0..0 } else { first..last };
        let mut starts = vec![0];
        let mut tokens = 0;
        for sequence in sequences.clone() {
            tokens += file.sequence_length(sequence) as u64;
            starts.push(tokens);
        }
        Ok(TokenStream { file, options, end_of_document, sequences, starts })
    }

    /// Ids and mask of the tokens `window` of the stream.
    fn window(&self, window: Range<u64>) -> Result<(Vec<u32>, Vec<bool>), IndexedError> {
        let length = (window.end - window.start) as usize;
        let (mut ids, mut mask) = (Vec::with_capacity(length), Vec::with_capacity(length));
        // The last sequence that starts at or before the window.
        let mut at = self.starts.partition_point(|start| *start <= window.start).saturating_sub(1);
        while ids.len() < length && at < self.sequences.len() {
            let from = (window.start.max(self.starts[at]) - self.starts[at]) as usize;
            let to = (window.end.min(self.starts[at + 1]) - self.starts[at]) as usize;
            if from < to {
                self.file.append_tokens(self.sequences.start + at, from..to, &mut ids)?;
                self.file.append_mask(self.sequences.start + at, from..to, &mut mask)?;
            }
            at += 1;
        }
        Ok((ids, mask))
    }
}

impl Sequences for TokenStream {
    fn count(&self) -> usize {
        let tokens = self.starts.last().copied().unwrap_or_default();
        (tokens.saturating_sub(1) / self.options.seq_length.max(1) as u64) as usize
    }

    fn sequence(&self, index: usize) -> Result<Sequence, IndexedError> {
        let length = self.options.seq_length as u64;
        let start = index as u64 * length;
        let (ids, mask) = self.window(start..start + length + 1)?;
        let mut sequence = Sequence::new();
        sequence.push_sample(&ids, &mask);
        let ends: Vec<usize> = match self.end_of_document {
            Some(end) => {
                (0..sequence.tokens.len()).filter(|at| sequence.tokens[*at] == end).collect()
            }
            None => Vec::new(),
        };
        self.apply(&mut sequence, &ends);
        Ok(sequence)
    }
}

impl TokenStream {
    /// Applies the options to a sequence with end-of-document tokens at `ends`.
    fn apply(&self, sequence: &mut Sequence, ends: &[usize]) {
        let length = sequence.tokens.len();
        for end in ends {
            let next = end + 1;
            if self.options.eod_mask_loss {
                sequence.loss_mask[*end] = false;
            }
            if self.options.reset_position_ids {
                let rest = sequence.positions[next..].iter_mut();
                (0..).zip(rest).for_each(|(position, old)| *old = position);
            }
            if self.options.reset_attention_mask && next < length {
                sequence.segments.insert(sequence.segments.len() - 1, next);
            }
        }
    }
}

/// The token with which all documents end that were looked at.
fn last_token(file: &IndexedFile) -> Result<u32, Error> {
    let documents = file.documents();
    let step = documents.div_ceil(LOOKED_AT).max(1);
    let mut found = None;
    for document in (0..documents).step_by(step) {
        let Some(last) = file.document(document).last() else { continue };
        let length = file.sequence_length(last);
        let mut token = Vec::new();
        let read = file.append_tokens(last, length.saturating_sub(1)..length, &mut token);
        if read.is_err() || token.is_empty() || found.is_some_and(|found| token != [found]) {
            found = None;
            break;
        }
        found = token.first().copied();
    }
    let prefix = || file.prefix().display().to_string();
    found.ok_or_else(|| Error::NoEndOfDocument { prefix: prefix() })
}

/// The documents of train, validation and test by shares (`splits_string`).
///
/// As in NeMo: shares are divided by their sum, boundaries are running sums of the rounded counts
/// (half to even), and what rounding gained or lost at the end is taken from every boundary.
#[expect(clippy::cast_sign_loss, reason = "boundaries are clamped to 0 and above")]
pub fn split_documents(shares: [f64; 3], documents: usize) -> [Range<usize>; 3] {
    let total: f64 = shares.iter().sum();
    let all = documents as f64;
    let mut boundaries = [0.0; 4];
    for (at, share) in shares.iter().enumerate() {
        boundaries[at + 1] = boundaries[at] + (share / total * all).round_ties_even();
    }
    let excess = boundaries[3] - all;
    let [_, first, second, _] = boundaries.map(|at| (at - excess).clamp(0.0, all) as usize);
    [0..first, first..second, second..documents]
}

/// Whether `prefix` names a token file: both of its files are there.
pub fn exists(prefix: &std::path::Path) -> bool {
    ["bin", "idx"].iter().all(|extension| with_extension(prefix, extension).exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_are_rounded_as_in_nemo() {
        // Computed by hand from the rule.
        assert_eq!(split_documents([900.0, 50.0, 50.0], 100), [0..90, 90..95, 95..100]);
        assert_eq!(split_documents([99990.0, 8.0, 2.0], 10), [0..10, 10..10, 10..10]);
        // 1.5 each: 2 + 2 + 0 is one too many, so every boundary moves down by one.
        assert_eq!(split_documents([1.0, 1.0, 0.0], 3), [0..1, 1..3, 3..3]);
        assert_eq!(split_documents([1.0, 0.0, 0.0], 0), [0..0, 0..0, 0..0]);
    }
}
