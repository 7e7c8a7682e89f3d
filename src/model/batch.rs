//! What a forward pass takes.

use crate::base::seed::Stream;
use crate::kernels::dropout::Dropout;

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

/// A batch with its noise; none outside training.
#[derive(Clone, Copy, Debug)]
pub struct Pass<'a> {
    /// The tokens.
    pub batch: Batch<'a>,
    /// Where dropout comes from; without it nothing is dropped.
    pub noise: Option<Noise>,
}

impl<'a> Pass<'a> {
    /// Dropout with `rate` at the place called `name`, such as `layers.3/mlp`.
    pub(super) fn dropout(&self, rate: f64, name: &str) -> Option<Dropout<'a>> {
        let noise = self.noise.filter(|_| rate > 0.0)?;
        let stream = Stream::new(noise.seed, &format!("dropout/{name}"));
        Some(Dropout { rate, stream, step: noise.step, addresses: self.batch.addresses })
    }
}
