//! Consecutive blocks: their forward keeps what the recipe's recomputation leaves, their backward
//! computes the rest again.
//!
//! What is computed again is computed by the same operations on the same numbers, so recomputation
//! changes no bit.

use super::activation_meter::{ActivationMeter, Held};
use super::batch::Pass;
use super::block::{self, Block, Neighbours, Stream};
use crate::kernels::attention::{Cache, Continued};
use crate::layout::parameters::Place;
use crate::layout::recompute::{Group, Keep, groups};
use crate::spec::optimization::Recompute;
use candle_core::{Result, Tensor};
use std::ops::Range;

/// Where a backward pass has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Milestone {
    /// All gradients of this part of the model are added.
    Finished(Place),
    /// Attention's core comes next.
    Attention,
}

/// Called with each milestone of a backward pass, which an error ends.
pub type Reached<'a> = dyn FnMut(Milestone) -> Result<()> + 'a;

/// The blocks of a model chunk.
#[derive(Debug)]
pub struct Trunk {
    blocks: Vec<Block>,
    groups: Vec<Group>,
    meter: ActivationMeter,
}

/// What the backward of a trunk needs, in the order of the forward.
#[derive(Debug)]
pub struct Saved(Vec<Part>);

/// What one group keeps.
#[derive(Debug)]
enum Part {
    /// What each block's backward reads.
    Blocks(Vec<Kept>),
    /// The input of blocks that are computed again.
    Input { blocks: Range<usize>, x: Tensor, held: Held },
}

#[derive(Debug)]
struct Kept {
    block: usize,
    saved: block::Saved,
    held: Held,
}

impl Trunk {
    /// These blocks, in this order; nothing is computed again.
    pub(super) fn new(blocks: Vec<Block>, meter: ActivationMeter) -> Trunk {
        Trunk { groups: groups(Recompute::None, blocks.len()), blocks, meter }
    }

    /// Decides what the backward computes again.
    pub(super) fn set_recompute(&mut self, recompute: Recompute) {
        self.groups = groups(recompute, self.blocks.len());
    }

    /// Number of blocks.
    pub fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Whether there is no block.
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// `[tokens, hidden]` to `[tokens, hidden]`.
    pub fn forward(&self, x: Tensor, pass: &Pass<'_>) -> Result<(Tensor, Saved)> {
        let (mut stream, mut parts) = (Stream::whole(x), Vec::with_capacity(self.groups.len()));
        for group in &self.groups {
            let part = if group.keep == Keep::Input {
                let x = stream.settled(pass)?;
                let held = self.meter.hold([&x]);
                stream = self.through(&group.blocks, Stream::whole(x.clone()), pass)?;
                Part::Input { blocks: group.blocks.clone(), x, held }
            } else {
                let kept;
                (stream, kept) = self.keep(&group.blocks, stream, pass, group.keep)?;
                Part::Blocks(kept)
            };
            parts.push(part);
        }
        Ok((stream.settled(pass)?, Saved(parts)))
    }

    /// The gradient of `x`; adds those of the parameters.
    pub fn backward(
        &self,
        saved: Saved,
        pass: &Pass<'_>,
        mut dy: Tensor,
        reached: &mut Reached<'_>,
    ) -> Result<Tensor> {
        for part in saved.0.into_iter().rev() {
            let kept = match part {
                Part::Blocks(kept) => kept,
                Part::Input { blocks, x, held } => {
                    // The first block counts its input itself.
                    drop(held);
                    self.keep(&blocks, Stream::whole(x), pass, Keep::All)?.1
                }
            };
            for Kept { block, saved, held } in kept.into_iter().rev() {
                let neighbours = self.neighbours(block);
                dy = self.blocks[block].backward(&saved, &dy, neighbours, (pass, reached))?;
                drop((saved, held));
                reached(Milestone::Finished(Place::Layer(self.blocks[block].layer)))?;
            }
        }
        Ok(dy)
    }

    /// The output, nothing kept.
    pub fn output(&self, x: Tensor, pass: &Pass<'_>) -> Result<Tensor> {
        self.through(&(0..self.blocks.len()), Stream::whole(x), pass)?.settled(pass)
    }

    fn through<'m>(
        &'m self,
        blocks: &Range<usize>,
        mut stream: Stream<'m>,
        pass: &Pass<'_>,
    ) -> Result<Stream<'m>> {
        for block in &self.blocks[blocks.clone()] {
            (stream, _) = block.forward(stream, pass, false)?;
        }
        Ok(stream)
    }

    fn neighbours(&self, block: usize) -> Neighbours<'_> {
        let before = block.checked_sub(1).map(|before| &self.blocks[before]);
        Neighbours { before, is_last: block + 1 == self.blocks.len() }
    }

    /// The output of `blocks` and what their backward reads.
    fn keep<'m>(
        &'m self,
        blocks: &Range<usize>,
        mut stream: Stream<'m>,
        pass: &Pass<'_>,
        keep: Keep,
    ) -> Result<(Stream<'m>, Vec<Kept>)> {
        let mut kept = Vec::with_capacity(blocks.len());
        for block in blocks.clone() {
            let saved;
            (stream, saved) = self.blocks[block].forward(stream, pass, keep == Keep::All)?;
            let held = self.meter.hold(saved.tensors());
            kept.push(Kept { block, saved, held });
        }
        Ok((stream, kept))
    }

    /// [`Block::continued`] through all blocks, with a cache each.
    pub(super) fn continued(
        &self,
        x: Tensor,
        pass: &Pass<'_>,
        caches: &[Cache],
        continued: &Continued<'_>,
    ) -> Result<Tensor> {
        let mut stream = Stream::whole(x);
        for (block, cache) in self.blocks.iter().zip(caches) {
            stream = block.continued(stream, pass, cache, continued)?;
        }
        stream.settled(pass)
    }
}
