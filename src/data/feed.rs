//! The training data of a run as one thing: sample numbers in, micro-batches out.

use super::indexed::{self, IndexedFile};
use super::microbatch::MicroBatch;
use super::sampler::{self, Order};
use super::sequences::{Sequence, Sequences, Shards};
use super::stream::{self, StreamOptions, TokenStream, split_documents};
use crate::base::digest::{Digest, Hasher};
use crate::spec::job::Split;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why there is no micro-batch.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A token file cannot be read.
    #[error(transparent)]
    Indexed(#[from] indexed::Error),
    /// A token file cannot be used as a stream.
    #[error(transparent)]
    Stream(#[from] stream::Error),
    /// There is nothing to order.
    #[error(transparent)]
    Sampler(#[from] sampler::Error),
}

/// Parts with their order. Cloning shares the files.
#[derive(Clone)]
pub struct Feed {
    parts: Vec<Arc<dyn Sequences>>,
    order: Order,
    seq_length: usize,
}

impl std::fmt::Debug for Feed {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Feed({} sequences)", self.count())
    }
}

/// How samples are ordered, and the longest sequence.
#[derive(Clone, Copy, Debug)]
pub struct Ordering {
    /// Seed of the epochs' permutations.
    pub seed: u64,
    /// Whether epochs are permuted at all.
    pub shuffle: bool,
    /// Tokens per training sequence.
    pub seq_length: usize,
}

/// Megatron token files and how they are read ([`crate::spec::job::DataSource::Prefixes`]).
#[derive(Clone, Copy, Debug)]
pub struct Blend<'a> {
    /// The files without their extensions.
    pub prefixes: &'a [PathBuf],
    /// A weight for each.
    pub weights: &'a [f64],
    /// Shares of train, validation and test documents.
    pub splits: [f64; 3],
    /// How windows are treated.
    pub options: StreamOptions,
}

impl Feed {
    /// One split of a shard stage's output.
    pub fn shards(folder: &Path, split: Split, ordering: Ordering) -> Result<Feed, Error> {
        let shards: Arc<dyn Sequences> = Arc::new(Shards::open(folder, split)?);
        Feed::new(vec![(1.0, shards)], ordering)
    }

    /// One split of Megatron token files, blended by weight.
    ///
    /// For training every part needs at least one sequence. Of the held-out splits, a part whose
    /// share is too small for a sequence is left out; it is an error when all are.
    pub fn prefixes(blend: &Blend<'_>, split: Split, ordering: Ordering) -> Result<Feed, Error> {
        let mut parts: Vec<(f64, Arc<dyn Sequences>)> = Vec::new();
        for (weight, prefix) in blend.weights.iter().zip(blend.prefixes) {
            let file = Arc::new(IndexedFile::open(prefix)?);
            let [train, validation, test] = split_documents(blend.splits, file.documents());
            let documents = match split {
                Split::Train => train,
                Split::Validation => validation,
                Split::Test => test,
            };
            let stream = TokenStream::new(file, documents, blend.options)?;
            if split == Split::Train || stream.count() > 0 {
                parts.push((*weight, Arc::new(stream)));
            }
        }
        Feed::new(parts, ordering)
    }

    /// Weighted parts.
    pub fn new(parts: Vec<(f64, Arc<dyn Sequences>)>, ordering: Ordering) -> Result<Feed, Error> {
        let sizes: Vec<_> = parts.iter().map(|(weight, part)| (*weight, part.count())).collect();
        let order = Order::blend(ordering.seed, &sizes, ordering.shuffle)?;
        let parts = parts.into_iter().map(|(_, part)| part).collect();
        Ok(Feed { parts, order, seq_length: ordering.seq_length })
    }

    /// Number of sequences of an epoch over all parts.
    pub fn count(&self) -> usize {
        self.parts.iter().map(|part| part.count()).sum()
    }

    /// Sample `number` of the run.
    pub fn sequence(&mut self, number: u64) -> Result<Sequence, Error> {
        let pick = self.order.pick(number);
        Ok(self.parts[pick.part].sequence(pick.index)?)
    }

    /// Hash of the samples with these numbers, however they are cut into micro-batches.
    pub fn digest(&mut self, numbers: Range<u64>) -> Result<Digest, Error> {
        let mut hasher = Hasher::default();
        for number in numbers {
            let Sequence { tokens, labels, loss_mask, positions, segments } =
                self.sequence(number)?;
            for ids in [&tokens, &labels, &positions] {
                hasher.update(&(ids.len() as u64).to_le_bytes());
                hasher.update(&ids.iter().flat_map(|id| id.to_le_bytes()).collect::<Vec<_>>());
            }
            hasher.update(&loss_mask.iter().map(|learned| u8::from(*learned)).collect::<Vec<_>>());
            let starts = segments.iter().flat_map(|start| (*start as u64).to_le_bytes());
            hasher.update(&starts.collect::<Vec<_>>());
        }
        Ok(hasher.finish())
    }

    /// The samples with these numbers as one micro-batch (see [`super::sampler::Share`]).
    pub fn micro_batch(&mut self, numbers: Range<u64>) -> Result<MicroBatch, Error> {
        let numbered = numbers.map(|number| Ok((number, self.sequence(number)?)));
        let sequences = numbered.collect::<Result<Vec<_>, Error>>()?;
        Ok(MicroBatch::assemble(&sequences, self.seq_length))
    }
}
