//! Causal attention within sequences, on the fused qkv tensor, with grouped queries.
//!
//! `softmax(scale · q·kᵀ)·v` per head, each token looking at itself and the tokens before it in its
//! own sequence (Vaswani et al.; Ainslie et al., "GQA"). The rows of scores are made one block of
//! queries at a time and dropped again, as `FlashAttention` does (Dao et al.): the backward remakes
//! them from the saved log-sum-exp.

mod backward;
mod cached;
mod forward;
mod tiles;

pub use backward::backward;
pub use cached::{BLOCK, Cache, Continued, cached};
pub use forward::{Saved, forward};

use super::Result;
use super::dropout::Dropout;
use candle_core::bail;

/// Heads and how they are scaled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    /// Query heads (of this rank).
    pub heads: usize,
    /// Key and value heads (of this rank); divides `heads`.
    pub groups: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Factor on the scores, `1/√head_dim` as published.
    pub scale: f64,
}

impl Shape {
    /// Width of a row of qkv: per group its query heads, its key, its value.
    pub fn qkv_width(&self) -> usize {
        (self.heads + 2 * self.groups) * self.head_dim
    }

    /// Width of a row of the output.
    pub fn output_width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Query heads per group.
    fn heads_per_group(&self) -> usize {
        self.heads / self.groups
    }

    /// Where in a row of qkv the queries of `head` start.
    fn query(&self, head: usize) -> usize {
        let group = head / self.heads_per_group();
        (head + 2 * group) * self.head_dim
    }

    /// Where in a row of qkv the key of `group` starts; its value follows.
    fn key(&self, group: usize) -> usize {
        ((group + 1) * self.heads_per_group() + 2 * group) * self.head_dim
    }

    fn check(&self) -> Result<()> {
        if self.groups == 0 || !self.heads.is_multiple_of(self.groups) {
            bail!("{} query heads cannot be cut into {} groups", self.heads, self.groups)
        }
        Ok(())
    }
}

/// Dropout of the attention probabilities.
#[derive(Clone, Copy, Debug)]
pub struct ProbabilityDropout<'a> {
    /// Rate, stream, step, and the address of each token.
    pub dropout: Dropout<'a>,
    /// The model's number of this rank's first query head.
    pub first_head: usize,
    /// Query heads of the whole model.
    pub all_heads: usize,
}

impl ProbabilityDropout<'_> {
    /// Calls `each(key, factor)` for keys `0..=last` of one query: token `row`, query head `head`.
    fn for_keys(&self, row: usize, head: usize, last: usize, mut each: impl FnMut(usize, f64)) {
        /// Blocks of four keys that one query can have: sequences up to 2^22 tokens.
        const QUADS: u64 = 1 << 20;
        let dropout = &self.dropout;
        let heads = dropout.addresses[row].wrapping_mul(self.all_heads as u64);
        let query = heads.wrapping_add((self.first_head + head) as u64).wrapping_mul(QUADS);
        for quad in 0..=last / 4 {
            let words = dropout.stream.words(dropout.step, query.wrapping_add(quad as u64));
            for (key, word) in (quad * 4..=last).zip(words) {
                each(key, dropout.factor(word));
            }
        }
    }
}

/// Refuses boundaries that do not go up from 0 to `tokens`.
fn check_starts(starts: &[usize], tokens: usize) -> Result<()> {
    let whole = starts.first() == Some(&0) && starts.last() == Some(&tokens);
    if whole && starts.windows(2).all(|pair| pair[0] <= pair[1]) {
        return Ok(());
    }
    bail!("sequence boundaries {starts:?} do not go up from 0 to {tokens}")
}

/// Cuts `rows` (each `width` long) at the sequence boundaries.
fn cut<'a, T>(mut rows: &'a mut [T], width: usize, starts: &[usize]) -> Vec<&'a mut [T]> {
    let mut parts = Vec::with_capacity(starts.len().saturating_sub(1));
    for pair in starts.windows(2) {
        let (part, rest) = rows.split_at_mut((pair[1] - pair[0]) * width);
        parts.push(part);
        rows = rest;
    }
    parts
}
