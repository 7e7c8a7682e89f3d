//! Likelihood of given answers: what a model makes of tokens that it is shown (teacher forced).

use super::replica::Replica;
use crate::model::batch::{Batch, Targets};
use candle_core::Result;
use std::sync::atomic::{AtomicBool, Ordering};

/// Most logits held at once, by which the size of a pass is chosen (64 MiB in fp32).
const LOGITS_PER_PASS: usize = 16 << 20;

/// A sequence whose marked tokens are scored.
#[derive(Clone, Copy, Debug)]
pub struct Scored<'a> {
    /// The tokens.
    pub tokens: &'a [u32],
    /// Whether each token is scored; the first never is, since nothing stands before it.
    pub learned: &'a [bool],
}

/// Sums over the scored tokens of one sequence.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sums {
    /// Negative log-likelihood, in nats.
    pub loss_sum: f64,
    /// Number of scored tokens.
    pub tokens: u64,
    /// Those that have the largest logit.
    pub correct: u64,
}

/// The sums of every sequence, in order; those done when `stop` was set.
///
/// `progress` hears of the sequences done so far.
pub fn score(
    replica: Replica<'_>,
    sequences: &[Scored<'_>],
    stop: &AtomicBool,
    mut progress: impl FnMut(usize),
) -> Result<Vec<Sums>> {
    let budget =
        (LOGITS_PER_PASS / replica.model().architecture().padded_vocab_size).clamp(256, 8192);
    let mut sums = Vec::with_capacity(sequences.len());
    let mut rest = sequences;
    while !rest.is_empty() && !stop.load(Ordering::Relaxed) {
        let count = fitting(rest, budget);
        sums.extend(pass(replica, &rest[..count])?);
        rest = &rest[count..];
        progress(sums.len());
    }
    Ok(sums)
}

/// How many of the first sequences have at most `budget` tokens together; at least one.
fn fitting(sequences: &[Scored<'_>], budget: usize) -> usize {
    let mut total = 0;
    let fits = |sequence: &&Scored<'_>| {
        total += sequence.tokens.len();
        total <= budget
    };
    sequences.iter().take_while(fits).count().max(1)
}

fn pass(replica: Replica<'_>, sequences: &[Scored<'_>]) -> Result<Vec<Sums>> {
    let (mut tokens, mut positions, mut starts) = (Vec::new(), Vec::new(), vec![0]);
    let (mut places, mut labels, mut owners) = (Vec::new(), Vec::new(), Vec::new());
    for (owner, sequence) in sequences.iter().enumerate() {
        // The last token is never read: nothing after it is asked for.
        let read = sequence.tokens.len().saturating_sub(1);
        for at in (0..read).filter(|at| sequence.learned[at + 1]) {
            places.push((tokens.len() + at) as u32);
            labels.push(sequence.tokens[at + 1]);
            owners.push(owner);
        }
        if read > 0 {
            tokens.extend_from_slice(&sequence.tokens[..read]);
            positions.extend(0..read as u32);
            starts.push(tokens.len());
        }
    }
    let mut sums = vec![Sums::default(); sequences.len()];
    if places.is_empty() {
        return Ok(sums);
    }
    let batch = Batch { tokens: &tokens, positions: &positions, starts: &starts, addresses: &[] };
    let scores = replica.scores(&batch, &Targets::new(&places, &labels))?;
    for (owner, score) in owners.into_iter().zip(scores) {
        sums[owner].loss_sum -= score.log_probability;
        sums[owner].tokens += 1;
        sums[owner].correct += u64::from(score.is_argmax);
    }
    Ok(sums)
}
