//! Attention of new tokens against the keys and values of earlier ones, for generation.

#![expect(clippy::inline_always, reason = "parts of loops that are built once per instruction set")]

use super::tiles::dot;
use super::{Shape, check_starts, cut};
use crate::kernels::Result;
use crate::kernels::carrier::{expect_shape, on_real, read, tensor, update};
use crate::kernels::launch::{unfilled, vectorized};
use crate::kernels::real::Real;
use candle_core::{DType, Device, Tensor, bail};
use rayon::prelude::*;
use std::iter;

/// Tokens whose keys and values stand in one block of a cache.
pub const BLOCK: usize = 32;

/// Keys and values of the sequences being generated, for one layer, in blocks of [`BLOCK`] tokens
/// that any sequence may have (Kwon et al., "Efficient Memory Management for Large Language Model
/// Serving with `PagedAttention`").
#[derive(Clone, Debug)]
pub struct Cache {
    /// `[blocks, BLOCK, groups·2·head_dim]`: per group a key, then its value.
    values: Tensor,
}

impl Cache {
    /// Room for `blocks` blocks, in this format and on this device.
    pub fn new(blocks: usize, shape: &Shape, (dtype, device): (DType, &Device)) -> Result<Cache> {
        let width = 2 * shape.groups * shape.head_dim;
        let values = Tensor::zeros((blocks, BLOCK, width), dtype, device)?;
        Ok(Cache { values })
    }
}

/// Which cached sequence each sequence of new tokens continues.
#[derive(Debug)]
pub struct Continued<'a> {
    starts: &'a [usize],
    lengths: &'a [usize],
    list: Vec<u32>,
    widest: usize,
}

impl<'a> Continued<'a> {
    /// `starts` has the first new row of each sequence and, last, the number of new rows; `blocks`
    /// the cache's blocks of each sequence, in the order of its tokens, with room for the new ones, no
    /// block twice; `lengths` how many tokens each of them already has in the cache. Each has a new row.
    pub fn new(
        starts: &'a [usize],
        blocks: &[&[u32]],
        lengths: &'a [usize],
    ) -> Result<Continued<'a>> {
        let sequences = starts.len().saturating_sub(1);
        if blocks.len() != sequences || lengths.len() != sequences {
            bail!(
                "{} lists of blocks and {} lengths for {sequences} sequences",
                blocks.len(),
                lengths.len()
            )
        }
        let news = || starts.windows(2).map(|pair| pair[1].saturating_sub(pair[0]));
        for (index, ((blocks, length), new)) in blocks.iter().zip(lengths).zip(news()).enumerate() {
            let end = length + new;
            if new == 0 {
                bail!("sequence {index} has no new row")
            }
            if end > blocks.len() * BLOCK {
                bail!("sequence {index} has {} blocks of {BLOCK} for {end} tokens", blocks.len())
            }
            if blocks.contains(&UNUSED) {
                bail!("sequence {index} has a block that is none")
            }
        }
        // Rounded up, so that the lists of many steps have one length.
        let widest = blocks.iter().map(|blocks| blocks.len()).max().unwrap_or_default();
        let widest = widest.max(16).next_power_of_two();
        let mut list: Vec<u32> =
            news().zip(0..).flat_map(|(new, index)| iter::repeat_n(index, new)).collect();
        for (new, length) in news().zip(lengths) {
            list.extend((0..new).map(|offset| (length + offset) as u32));
        }
        for blocks in blocks {
            list.extend_from_slice(blocks);
            list.extend(iter::repeat_n(UNUSED, widest - blocks.len()));
        }
        Ok(Continued { starts, lengths, list, widest })
    }

    /// All of it in one list, for a device: of each new row the number of its sequence, of each its
    /// place in it, and the blocks of each sequence, [`widest`](Continued::widest) of them.
    pub fn list(&self) -> &[u32] {
        &self.list
    }

    /// Sequences with new rows.
    pub fn sequences(&self) -> usize {
        self.lengths.len()
    }

    /// Blocks that the list has for each sequence.
    pub fn widest(&self) -> usize {
        self.widest
    }

    /// The blocks of a sequence, and behind them what means nothing.
    fn blocks(&self, index: usize) -> &[u32] {
        let rows = self.starts.last().copied().unwrap_or_default();
        &self.list[2 * rows + index * self.widest..][..self.widest]
    }

    fn check(&self, cache: &Cache) -> Result<()> {
        let there = cache.values.dim(0)?;
        for index in 0..self.sequences() {
            let outside = |block: &&u32| **block != UNUSED && **block as usize >= there;
            if let Some(block) = self.blocks(index).iter().find(outside) {
                bail!("sequence {index} has block {block}; the cache has {there}")
            }
        }
        Ok(())
    }
}

/// No block.
const UNUSED: u32 = u32::MAX;

/// Appends the keys and values of `qkv`'s new rows to the cache, then attends over everything so
/// far; gives `[new tokens, heads·head_dim]`. Prefill and decoding are the same call.
pub fn cached(
    qkv: &Tensor,
    cache: &Cache,
    continued: &Continued<'_>,
    shape: &Shape,
) -> Result<Tensor> {
    let tokens = qkv.dim(0)?;
    shape.check()?;
    expect_shape("qkv", qkv, &[tokens, shape.qkv_width()])?;
    check_starts(continued.starts, tokens)?;
    continued.check(cache)?;
    #[cfg(feature = "cuda")]
    if qkv.device().is_cuda() {
        return crate::kernels::cuda::attention::cached(qkv, &cache.values, continued, shape);
    }
    on_real!(qkv, T => {
        let new = read::<T>(qkv)?;
        let new: &[T] = &new;
        update::<T, _>(&cache.values, |values| {
            append(values, new, continued, shape);
        })?;
        let values = read::<T>(&cache.values)?;
        let values: &[T] = &values;
        let mut output = unfilled::<T>(tokens * shape.output_width());
        let outputs = cut(&mut output, shape.output_width(), continued.starts);
        outputs.into_par_iter().enumerate().for_each(|(index, output)| {
            let [from, to] = [continued.starts[index], continued.starts[index + 1]];
            let new = &new[from * shape.qkv_width()..to * shape.qkv_width()];
            let past = (values, continued.blocks(index));
            sequence(new, past, continued.lengths[index], shape, output);
        });
        tensor(output, (tokens, shape.output_width()), qkv.dtype())
    })
}

fn append<T: Real>(values: &mut [T], new: &[T], continued: &Continued<'_>, shape: &Shape) {
    let pair = 2 * shape.head_dim;
    for (index, bounds) in continued.starts.windows(2).enumerate() {
        for (offset, row) in (bounds[0]..bounds[1]).enumerate() {
            let place = continued.lengths[index] + offset;
            let block = continued.blocks(index)[place / BLOCK] as usize;
            for group in 0..shape.groups {
                let from = row * shape.qkv_width() + shape.key(group);
                let to = ((block * BLOCK + place % BLOCK) * shape.groups + group) * pair;
                values[to..to + pair].copy_from_slice(&new[from..from + pair]);
            }
        }
    }
}

vectorized! {
    fn sequence<T: Real>(
        new: &[T],
        past: (&[T], &[u32]),
        length: usize,
        shape: &Shape,
        output: &mut [T],
    ) {
        let (values, blocks) = past;
        let (width, d) = (shape.qkv_width(), shape.head_dim);
        let (rows, step) = (new.len() / width, 2 * shape.groups * d);
        let mut scores = vec![T::ZERO; length + rows];
        for (row, head) in (0..rows).flat_map(|row| (0..shape.heads).map(move |head| (row, head))) {
            let group = head / shape.heads_per_group();
            let pairs = |block: u32| &values[block as usize * BLOCK * step + group * 2 * d..];
            let q = &new[row * width + shape.query(head)..][..d];
            let scores = &mut scores[..=length + row];
            for (scores, block) in scores.chunks_mut(BLOCK).zip(blocks) {
                let pairs = pairs(*block);
                for (key, score) in scores.iter_mut().enumerate() {
                    *score = dot(q, &pairs[key * step..][..d]) * T::of(shape.scale);
                }
            }
            softmax(scores);
            let out = &mut output[(row * shape.heads + head) * d..][..d];
            out.fill(T::ZERO);
            for (scores, block) in scores.chunks(BLOCK).zip(blocks) {
                let pairs = pairs(*block);
                for (key, probability) in scores.iter().enumerate() {
                    let v = &pairs[key * step + d..][..d];
                    for (out, v) in out.iter_mut().zip(v) {
                        *out = probability.fma(*v, *out);
                    }
                }
            }
        }
    }
}

/// Softmax in place.
#[inline(always)]
fn softmax<T: Real>(scores: &mut [T]) {
    let max = scores.iter().fold(scores[0], |max, score| max.larger(*score));
    let mut sum = T::ZERO;
    for score in scores.iter_mut() {
        *score = (*score - max).exponential();
        sum += *score;
    }
    let factor = T::ONE / sum;
    for score in scores {
        *score *= factor;
    }
}
