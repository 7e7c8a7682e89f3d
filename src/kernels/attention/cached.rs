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

/// Keys and values of the sequences being generated, for one layer.
#[derive(Clone, Debug)]
pub struct Cache {
    /// `[slots, capacity, groups·2·head_dim]`: per group a key, then its value.
    values: Tensor,
    capacity: usize,
}

impl Cache {
    /// Room for `slots` sequences of up to `capacity` tokens each, in this format and on this
    /// device.
    pub fn new(
        slots: usize,
        capacity: usize,
        shape: &Shape,
        (dtype, device): (DType, &Device),
    ) -> Result<Cache> {
        let width = 2 * shape.groups * shape.head_dim;
        let values = Tensor::zeros((slots, capacity, width), dtype, device)?;
        Ok(Cache { values, capacity })
    }
}

/// Which cached sequence each sequence of new tokens continues.
#[derive(Clone, Copy, Debug)]
pub struct Continued<'a> {
    /// First new row of each sequence and, last, the number of new rows.
    pub starts: &'a [usize],
    /// The cache's slot of each sequence; no slot twice.
    pub slots: &'a [usize],
    /// Tokens that each of these sequences already has in the cache.
    pub lengths: &'a [usize],
}

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
            append(values, cache.capacity, new, continued, shape);
        })?;
        let values = read::<T>(&cache.values)?;
        let values: &[T] = &values;
        let mut output = unfilled::<T>(tokens * shape.output_width());
        let outputs = cut(&mut output, shape.output_width(), continued.starts);
        outputs.into_par_iter().enumerate().for_each(|(index, output)| {
            let [from, to] = [continued.starts[index], continued.starts[index + 1]];
            let per_slot = cache.capacity * 2 * shape.groups * shape.head_dim;
            let past = &values[continued.slots[index] * per_slot..][..per_slot];
            let new = &new[from * shape.qkv_width()..to * shape.qkv_width()];
            sequence(new, past, continued.lengths[index], shape, output);
        });
        tensor(output, (tokens, shape.output_width()), qkv.dtype())
    })
}

impl Continued<'_> {
    fn check(&self, cache: &Cache) -> Result<()> {
        let slots = cache.values.dim(0)?;
        let sequences = self.starts.len() - 1;
        if self.slots.len() != sequences || self.lengths.len() != sequences {
            bail!(
                "{} slots and {} lengths for {sequences} sequences",
                self.slots.len(),
                self.lengths.len()
            )
        }
        for (index, (slot, length)) in self.slots.iter().zip(self.lengths).enumerate() {
            let end = length + self.starts[index + 1] - self.starts[index];
            if *slot >= slots || end > cache.capacity {
                bail!(
                    "sequence {index} needs slot {slot} and {end} tokens; the cache has {slots} slots of {}",
                    cache.capacity
                )
            }
        }
        Ok(())
    }
}

fn append<T: Real>(
    values: &mut [T],
    capacity: usize,
    new: &[T],
    continued: &Continued<'_>,
    shape: &Shape,
) {
    let pair = 2 * shape.head_dim;
    for (index, bounds) in continued.starts.windows(2).enumerate() {
        let first = continued.slots[index] * capacity + continued.lengths[index];
        for (offset, row) in (bounds[0]..bounds[1]).enumerate() {
            for group in 0..shape.groups {
                let from = row * shape.qkv_width() + shape.key(group);
                let to = ((first + offset) * shape.groups + group) * pair;
                values[to..to + pair].copy_from_slice(&new[from..from + pair]);
            }
        }
    }
}

vectorized! {
    fn sequence<T: Real>(new: &[T], past: &[T], length: usize, shape: &Shape, output: &mut [T]) {
        let (width, d) = (shape.qkv_width(), shape.head_dim);
        let rows = new.len() / width;
        let mut scores = vec![T::ZERO; length + rows];
        for (row, head) in (0..rows).flat_map(|row| (0..shape.heads).map(move |head| (row, head))) {
            let group = head / shape.heads_per_group();
            let key_at = |key: usize| (key * shape.groups + group) * 2 * d;
            let q = &new[row * width + shape.query(head)..][..d];
            let scores = &mut scores[..=length + row];
            for (key, score) in scores.iter_mut().enumerate() {
                let k = &past[key_at(key)..][..d];

                *score = dot(q, k) * T::of(shape.scale);
            }
            softmax(scores);
            let out = &mut output[(row * shape.heads + head) * d..][..d];
            out.fill(T::ZERO);
            for (key, probability) in scores.iter().enumerate() {
                let v = &past[key_at(key) + d..][..d];
                for (out, v) in out.iter_mut().zip(v) {
                    *out = probability.fma(*v, *out);
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
