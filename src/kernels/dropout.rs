//! Dropout whose mask is a function of the address of a number, so nothing has to be kept for the backward.

use super::Result;
use super::carrier::{on_real, read, tensor};
use super::launch::{for_row_blocks, unfilled};
use super::real::Real;
use crate::base::seed::Stream;
use candle_core::{Tensor, bail};

/// Which numbers are dropped: those whose random word at (`step`, address, channel) is small.
#[derive(Clone, Copy, Debug)]
pub struct Dropout<'a> {
    /// Share of the numbers that become zero, in [0, 1).
    pub rate: f64,
    /// The stream of this layer's mask, such as `dropout/layers.3/hidden`.
    pub stream: Stream,
    /// The optimizer step.
    pub step: u64,
    /// For every token a number that is the same on every layout and in every cut of the batch,
    /// such as the consumed sample's number times the sequence length, plus the position.
    pub addresses: &'a [u64],
    /// Which channels these are, where ranks hold parts of a token's; none for all of them.
    pub channels: Option<Channels>,
}

/// Some of the channels of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Channels {
    /// The first one.
    pub first: usize,
    /// Channels of all ranks.
    pub all: usize,
}

impl Dropout<'_> {
    /// What a number with this random word is multiplied with: 0, or 1 / (1 - rate).
    #[inline]
    pub(super) fn factor(&self, word: u32) -> f64 {
        if f64::from(word) >= self.rate * 4_294_967_296.0 { 1.0 / (1.0 - self.rate) } else { 0.0 }
    }

    /// Refuses a rate outside [0, 1) and a list of addresses that is not one per token.
    pub(super) fn check(&self, tokens: usize) -> Result<()> {
        if !(0.0..1.0).contains(&self.rate) {
            bail!("dropout rate {} is not in [0, 1)", self.rate)
        }
        if self.addresses.len() != tokens {
            bail!("{} dropout addresses for {tokens} tokens", self.addresses.len())
        }
        Ok(())
    }

    /// Calls `each(column, factor)` for the `width` channels of `token`; the factor is [`Self::factor`].
    #[inline]
    pub(super) fn for_row(&self, token: usize, width: usize, mut each: impl FnMut(usize, f64)) {
        let Channels { first, all } = self.channels.unwrap_or(Channels { first: 0, all: width });
        let quads = first / 4..(first + width).div_ceil(4);
        let start = self.addresses[token].wrapping_mul(all.div_ceil(4) as u64);
        for quad in quads {
            let words = self.stream.words(self.step, start.wrapping_add(quad as u64));
            for (channel, word) in (quad * 4..first + width).zip(words) {
                if channel >= first {
                    each(channel - first, self.factor(word));
                }
            }
        }
    }
}

/// `x` `[tokens, width]` with the mask applied: the forward of `x`, and the backward of a gradient.
pub fn apply(x: &Tensor, dropout: &Dropout<'_>) -> Result<Tensor> {
    let (tokens, width) = x.dims2()?;
    dropout.check(tokens)?;
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        return super::cuda::residual::forward(x, None, Some(dropout), None);
    }
    on_real!(x, T => {
        let values = read::<T>(x)?;
        let values: &[T] = &values;
        let mut y = unfilled::<T>(values.len());
        for_row_blocks(&mut y, width, |first, rows| {
            for (row, y) in (first..).zip(rows.chunks_exact_mut(width)) {
                mask_row(dropout, row, &values[row * width..(row + 1) * width], y);
            }
        });
        tensor(y, (tokens, width), x.dtype())
    })
}

/// `y = x · mask` for one token.
fn mask_row<T: Real>(dropout: &Dropout<'_>, token: usize, x: &[T], y: &mut [T]) {
    dropout.for_row(token, x.len(), |column, factor| y[column] = x[column] * T::of(factor));
}
