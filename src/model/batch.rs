//! What a forward pass takes.

use crate::base::seed::Stream;
use crate::kernels::dropout::Dropout;
use crate::parallel::regions::TensorAxis;
use std::borrow::Cow;
use std::fmt::Display;

/// Tokens of a few sequences, end to end, without padding.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// Input ids.
    pub tokens: &'a [u32],
    /// Position of each token in its segment, from 0.
    pub positions: &'a [u32],
    /// Starts of the segments and, last, the number of tokens: attention is causal within a
    /// segment and sees nothing outside it.
    pub starts: &'a [usize],
    /// A number for each token that no other token of the run has; it addresses dropout.
    pub addresses: &'a [u64],
}

/// Which outputs are learned, or scored.
#[derive(Clone, Copy, Debug)]
pub struct Targets<'a> {
    /// Places in the batch of the tokens whose next token counts.
    pub places: &'a [u32],
    /// The next token at each of these places.
    pub labels: &'a [u32],
    /// Gradients are those of the loss sum times this: fp16's loss scale, else 1.
    pub gradient_scale: f64,
}

impl<'a> Targets<'a> {
    /// Targets whose gradients are those of the loss sum.
    pub fn new(places: &'a [u32], labels: &'a [u32]) -> Targets<'a> {
        Targets { places, labels, gradient_scale: 1.0 }
    }
}

/// Where the random numbers of a training step come from.
#[derive(Clone, Copy, Debug)]
pub struct Noise {
    /// Seed of the run.
    pub seed: u64,
    /// The optimizer step.
    pub step: u64,
}

/// A batch on its way through a model.
#[derive(Clone, Debug)]
pub struct Pass<'a> {
    /// The tokens.
    pub(super) batch: Batch<'a>,
    /// Where dropout comes from; without it nothing is dropped.
    noise: Option<Noise>,
    /// The addresses of the residual stream's rows.
    stream_addresses: Cow<'a, [u64]>,
}

impl<'a> Pass<'a> {
    /// A pass of `batch` with its noise; none outside training.
    pub(super) fn new(batch: &Batch<'a>, noise: Option<Noise>, axis: &TensorAxis) -> Pass<'a> {
        let addresses = if noise.is_some() { batch.addresses } else { &[] };
        Pass { batch: *batch, noise, stream_addresses: axis.scattered_list(addresses) }
    }

    /// Number of tokens.
    pub fn tokens(&self) -> usize {
        self.batch.tokens.len()
    }

    /// Dropout with `rate` at the place called `name`, such as `layers.3/mlp`, where all tokens are.
    pub(super) fn dropout(&self, rate: f64, name: impl Display) -> Option<Dropout<'a>> {
        self.dropout_at(rate, name, self.batch.addresses)
    }

    /// The same on the residual stream.
    pub(super) fn stream_dropout(&self, rate: f64, name: impl Display) -> Option<Dropout<'_>> {
        self.dropout_at(rate, name, &self.stream_addresses)
    }

    fn dropout_at<'b>(
        &self,
        rate: f64,
        name: impl Display,
        addresses: &'b [u64],
    ) -> Option<Dropout<'b>> {
        let noise = self.noise.filter(|_| rate > 0.0)?;
        let stream = Stream::new(noise.seed, &format!("dropout/{name}"));
        Some(Dropout { rate, stream, step: noise.step, addresses, channels: None })
    }
}
