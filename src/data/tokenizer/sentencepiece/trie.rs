//! A prefix tree over bytes.

use std::collections::BTreeMap;

/// Byte strings with a value each.
#[derive(Debug)]
pub(super) struct Trie {
    nodes: Vec<Node>,
}

#[derive(Debug, Default)]
struct Node {
    children: BTreeMap<u8, usize>,
    value: Option<u32>,
}

impl Default for Trie {
    fn default() -> Trie {
        Trie { nodes: vec![Node::default()] }
    }
}

impl Trie {
    pub(super) fn insert(&mut self, key: &[u8], value: u32) {
        let mut at = 0;
        for byte in key {
            let fresh = self.nodes.len();
            at = *self.nodes[at].children.entry(*byte).or_insert(fresh);
            if at == fresh {
                self.nodes.push(Node::default());
            }
        }
        self.nodes[at].value = Some(value);
    }

    /// Every key that `text` starts with, shortest first: its length and value.
    pub(super) fn prefixes(&self, text: &[u8]) -> impl Iterator<Item = (usize, u32)> {
        let mut at = Some(0);
        text.iter()
            .enumerate()
            .map_while(move |(index, byte)| {
                at = self.nodes[at?].children.get(byte).copied();
                Some(self.nodes[at?].value.map(|value| (index + 1, value)))
            })
            .flatten()
    }

    /// The longest key that `text` starts with.
    pub(super) fn longest(&self, text: &[u8]) -> Option<(usize, u32)> {
        self.prefixes(text).last()
    }
}
