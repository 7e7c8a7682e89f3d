//! The most likely segmentation under a unigram model (google/sentencepiece, `unigram_model.cc`,
//! `EncodeOptimized`): Viterbi over the byte positions of the text.

use super::proto_model::{Piece, PieceType};
use super::trie::Trie;

/// An unknown character scores this much below the worst piece.
const UNKNOWN_PENALTY: f32 = 10.0;

/// The pieces of a unigram model.
#[derive(Debug)]
pub(super) struct Unigram {
    trie: Trie,
    /// Score and whether the piece is user-defined, by id.
    scores: Vec<(f32, bool)>,
    best: f32,
    worst: f32,
}

/// The best way to reach a position.
#[derive(Clone, Copy)]
struct Arrival {
    start: usize,
    id: u32,
    score: f32,
}

impl Unigram {
    pub(super) fn new(pieces: &[Piece]) -> Unigram {
        let mut trie = Trie::default();
        for (id, piece) in (0u32..).zip(pieces) {
            if matches!(piece.kind, PieceType::Normal | PieceType::UserDefined) {
                trie.insert(piece.text.as_bytes(), id);
            }
        }
        let normal = pieces.iter().filter(|piece| piece.kind == PieceType::Normal);
        // The original starts the maximum at the least positive float.
        let (best, worst) = normal.fold((f32::MIN_POSITIVE, f32::MAX), |(best, worst), piece| {
            (best.max(piece.score), worst.min(piece.score))
        });
        let is_fixed = |piece: &Piece| piece.kind == PieceType::UserDefined;
        let scores = pieces.iter().map(|piece| (piece.score, is_fixed(piece))).collect();
        Unigram { trie, scores, best, worst }
    }

    /// The segmentation of `text`: pieces with their ids, `unk` for a character that no piece covers.
    pub(super) fn encode<'a>(&self, text: &'a str, unk: u32) -> Vec<(&'a str, u32)> {
        let mut arrivals: Vec<Option<Arrival>> = vec![None; text.len() + 1];
        for (start, character) in text.char_indices() {
            let before = arrivals[start].map_or(0.0, |arrival| arrival.score);
            let single = character.len_utf8();
            let mut covered = false;
            for (length, id) in self.trie.prefixes(&text.as_bytes()[start..]) {
                let score = self.score(id, length) + f64::from(before);
                arrive(&mut arrivals[start + length], start, id, score);
                covered |= length == single;
            }
            if !covered {
                let score = f64::from(self.worst - UNKNOWN_PENALTY + before);
                arrive(&mut arrivals[start + single], start, unk, score);
            }
        }
        let mut pieces = Vec::new();
        let mut end = text.len();
        while let Some(Arrival { start, id, .. }) = arrivals[end] {
            pieces.push((&text[start..end], id));
            end = start;
        }
        pieces.reverse();
        pieces
    }

    /// A user-defined piece always wins over what it is made of.
    fn score(&self, id: u32, length: usize) -> f64 {
        let (score, fixed) = self.scores[id as usize];
        if fixed { f64::from(length as f32 * self.best) - 0.1 } else { f64::from(score) }
    }
}

fn arrive(arrival: &mut Option<Arrival>, start: usize, id: u32, score: f64) {
    if arrival.is_none_or(|known| score > f64::from(known.score)) {
        *arrival = Some(Arrival { start, id, score: score as f32 });
    }
}
