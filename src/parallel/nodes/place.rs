//! Where a node stands, and how its failure is told.

use serde::{Deserialize, Serialize};
use std::ops::Range;

/// Where this process stands among those of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// This node's number, from 0.
    pub node: usize,
    /// Number of nodes.
    pub count: usize,
    /// Ranks of each node: one for each of its devices.
    pub devices: usize,
}

impl Place {
    /// Numbers in the run of this node's ranks.
    pub fn ranks(&self) -> Range<usize> {
        self.ranks_of(self.node)
    }

    /// Ranks of the run.
    pub fn world_size(&self) -> usize {
        self.count * self.devices
    }

    /// Numbers in the run of the ranks of node `node`.
    pub(in crate::parallel) fn ranks_of(&self, node: usize) -> Range<usize> {
        node * self.devices..(node + 1) * self.devices
    }

    /// The node that has rank `rank`.
    pub fn node_of(&self, rank: usize) -> usize {
        rank / self.devices
    }
}

/// `rank 3`, `ranks 2 to 5`.
pub fn in_words(ranks: &Range<usize>) -> String {
    match ranks.len() {
        1 => format!("rank {}", ranks.start),
        _ => format!("ranks {} to {}", ranks.start, ranks.end.saturating_sub(1)),
    }
}

/// What ended a run on all its nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("node {node}: {text}")]
pub struct NodeFailure {
    /// Where it happened.
    pub node: usize,
    /// What.
    pub text: String,
    /// Whether it may well not happen again: a node was lost, or a rank panicked.
    pub is_accident: bool,
}

impl NodeFailure {
    /// A failure of what `node` did.
    pub(super) fn of_work(node: usize, text: impl Into<String>) -> NodeFailure {
        NodeFailure { node, text: text.into(), is_accident: false }
    }

    /// An accident on `node`.
    pub(super) fn accident(node: usize, text: impl Into<String>) -> NodeFailure {
        NodeFailure { node, text: text.into(), is_accident: true }
    }
}

#[cfg(test)]
mod tests {
    use super::in_words;

    #[test]
    fn one_rank_and_several() {
        assert_eq!(in_words(&(1..2)), "rank 1");
        assert_eq!(in_words(&(2..6)), "ranks 2 to 5");
    }
}
