//! Byte-pair segmentation by scores (google/sentencepiece, `bpe_model.cc`).
//!
//! Starting from characters, the neighbours whose union is the best-scoring piece are joined, the
//! leftmost first among equals, until nothing can be joined.

use super::Vocabulary;
use super::proto_model::PieceType;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap};

/// A run of text that is one piece so far; joined ones keep the left one's place.
struct Symbol {
    start: usize,
    /// Equal to `start` once it was joined to its left neighbour.
    end: usize,
    left: Option<usize>,
    right: Option<usize>,
    /// A user-defined piece, which is joined to nothing.
    fixed: bool,
}

/// Two neighbours that may be joined.
#[derive(PartialEq)]
struct Candidate {
    score: f32,
    left: usize,
    right: usize,
    /// Length of the union: it differs from the present one when the candidate is out of date.
    length: usize,
}

impl Eq for Candidate {}

impl Ord for Candidate {
    fn cmp(&self, other: &Candidate) -> Ordering {
        self.score.total_cmp(&other.score).then(other.left.cmp(&self.left))
    }
}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Candidate) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The segmentation of `text`: pieces with their ids.
pub(super) fn encode<'a>(text: &'a str, vocabulary: &Vocabulary) -> Vec<(&'a str, u32)> {
    let mut merger = Merger {
        text,
        vocabulary,
        symbols: split(text, vocabulary),
        queue: BinaryHeap::new(),
        unused: BTreeMap::new(),
    };
    merger.merge();
    merger.result()
}

struct Merger<'a, 'v> {
    text: &'a str,
    vocabulary: &'v Vocabulary,
    symbols: Vec<Symbol>,
    queue: BinaryHeap<Candidate>,
    /// Unused pieces that were proposed, with the length of their left part.
    unused: BTreeMap<&'a str, usize>,
}

impl<'a> Merger<'a, '_> {
    fn merge(&mut self) {
        for left in 1..self.symbols.len() {
            self.propose(Some(left - 1), Some(left));
        }
        while let Some(Candidate { left, right, length, .. }) = self.queue.pop() {
            let (first, second) = (&self.symbols[left], &self.symbols[right]);
            let gone = first.start == first.end || second.start == second.end;
            if gone || second.end - first.start != length {
                continue;
            }
            let (end, after) = (second.end, second.right);
            self.symbols[left].end = end;
            self.symbols[left].right = after;
            self.symbols[right].end = self.symbols[right].start;
            if let Some(after) = after {
                self.symbols[after].left = Some(left);
            }
            self.propose(self.symbols[left].left, Some(left));
            self.propose(Some(left), after);
        }
    }

    /// Notes that two neighbours may be joined, if their union is a piece.
    fn propose(&mut self, left: Option<usize>, right: Option<usize>) {
        let (Some(left), Some(right)) = (left, right) else { return };
        let (first, second) = (&self.symbols[left], &self.symbols[right]);
        if first.fixed || second.fixed {
            return;
        }
        let union = &self.text[first.start..second.end];
        let Some(id) = self.vocabulary.text_ids.get(union) else { return };
        let piece = &self.vocabulary.pieces[*id as usize];
        self.queue.push(Candidate { score: piece.score, left, right, length: union.len() });
        if piece.kind == PieceType::Unused {
            self.unused.insert(union, first.end - first.start);
        }
    }

    fn result(&self) -> Vec<(&'a str, u32)> {
        let mut pieces = Vec::new();
        let mut next = if self.symbols.is_empty() { None } else { Some(0) };
        while let Some(at) = next {
            let symbol = &self.symbols[at];
            self.push(&self.text[symbol.start..symbol.end], &mut pieces);
            next = symbol.right;
        }
        pieces
    }

    /// Appends a piece; an unused one is taken apart again.
    fn push(&self, piece: &'a str, pieces: &mut Vec<(&'a str, u32)>) {
        let id = self.vocabulary.id(piece);
        let unused = self.vocabulary.pieces[id as usize].kind == PieceType::Unused;
        match self.unused.get(piece).filter(|_| unused) {
            Some(length) => {
                self.push(&piece[..*length], pieces);
                self.push(&piece[*length..], pieces);
            }
            None => pieces.push((piece, id)),
        }
    }
}

/// Characters, and user-defined pieces whole.
fn split(text: &str, vocabulary: &Vocabulary) -> Vec<Symbol> {
    let mut symbols: Vec<Symbol> = Vec::new();
    let mut start = 0;
    while let Some(first) = text[start..].chars().next() {
        let fixed = vocabulary.user_defined.longest(&text.as_bytes()[start..]);
        let end = start + fixed.map_or(first.len_utf8(), |(length, _)| length);
        let left = symbols.len().checked_sub(1);
        if let Some(left) = left {
            symbols[left].right = Some(left + 1);
        }
        symbols.push(Symbol { start, end, left, right: None, fixed: fixed.is_some() });
        start = end;
    }
    symbols
}
