//! Which blocks keep what of their forward pass: recomputation as a list of groups.

use crate::spec::optimization::Recompute;
use std::ops::Range;

/// What a group of blocks keeps between its forward and its backward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Everything that the backward reads.
    All,
    /// Everything but the core of attention, which is computed again from its queries, keys and values.
    AllButCore,
    /// The input of the group's first block; its forward is run again, whole, before its backward.
    Input,
}

/// Consecutive blocks that keep the same, together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The blocks, counted in their model chunk.
    pub blocks: Range<usize>,
    /// What they keep.
    pub keep: Keep,
}

/// The groups of a model chunk of `blocks` blocks, in the order of the forward pass.
///
/// As in NeMo: `uniform` cuts the chunk into groups of so many blocks (the last may be smaller),
/// `block` recomputes the first so many blocks of the chunk, each for itself.
pub fn groups(recompute: Recompute, blocks: usize) -> Vec<Group> {
    let single = |at: usize, keep| Group { blocks: at..at + 1, keep };
    match recompute {
        Recompute::None => (0..blocks).map(|at| single(at, Keep::All)).collect(),
        Recompute::Selective => (0..blocks).map(|at| single(at, Keep::AllButCore)).collect(),
        Recompute::Uniform(size) => (0..blocks)
            .step_by(size.max(1))
            .map(|at| Group { blocks: at..blocks.min(at + size.max(1)), keep: Keep::Input })
            .collect(),
        Recompute::Block(count) => (0..blocks)
            .map(|at| single(at, if at < count { Keep::Input } else { Keep::All }))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(recompute: Recompute, expected: &[(Range<usize>, Keep)]) {
        let found: Vec<_> =
            groups(recompute, 5).into_iter().map(|group| (group.blocks, group.keep)).collect();
        assert_eq!(found, expected, "{recompute:?}");
    }

    #[test]
    fn uniform_cuts_all_blocks_and_block_takes_the_first() {
        check(
            Recompute::Uniform(2),
            &[(0..2, Keep::Input), (2..4, Keep::Input), (4..5, Keep::Input)],
        );
        check(Recompute::Uniform(9), &[(0..5, Keep::Input)]);
        check(
            Recompute::Block(2),
            &[
                (0..1, Keep::Input),
                (1..2, Keep::Input),
                (2..3, Keep::All),
                (3..4, Keep::All),
                (4..5, Keep::All),
            ],
        );
        assert!(groups(Recompute::Block(9), 5).iter().all(|group| group.keep == Keep::Input));
        assert!(groups(Recompute::Selective, 5).iter().all(|group| group.keep == Keep::AllButCore));
    }
}
