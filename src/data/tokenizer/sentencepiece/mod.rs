//! SentencePiece models: `.model` files of the kinds BPE and unigram.
//!
//! Source of the rules: google/sentencepiece, `sentencepiece_processor.cc`, `normalizer.cc`,
//! `bpe_model.cc`, `unigram_model.cc`; the tests compare ids and texts with the original's.

mod bpe;
mod charsmap;
mod normalizer;
mod protobuf;
mod proto_model;
mod trie;
mod unigram;

use super::files::read;
use super::{Error, SpecialIds};
use normalizer::{Normalizer, Place, SPACE};
use proto_model::{ModelKind, PieceType, ProtoModel};
use std::collections::BTreeMap;
use std::path::Path;
use unigram::Unigram;

/// A SentencePiece processor.
#[derive(Debug)]
pub(super) struct SentencePiece {
    vocabulary: Vocabulary,
    normalizer: Normalizer,
    algorithm: Algorithm,
    byte_fallback: bool,
    unk_surface: String,
    special: SpecialIds,
    /// Whether the first space of a decoded text is one that encoding put there.
    strips_first_space: bool,
    strips_all_spaces: bool,
}

#[derive(Debug)]
enum Algorithm {
    Bpe,
    Unigram(Unigram),
}

/// The pieces with their ids.
#[derive(Debug)]
struct Vocabulary {
    pieces: Vec<proto_model::Piece>,
    /// Pieces that text can become.
    text_ids: BTreeMap<String, u32>,
    /// Control, unknown and byte pieces.
    reserved_ids: BTreeMap<String, u32>,
    unk: u32,
    /// The ids of the 256 byte pieces, when the model has them.
    byte_ids: Vec<u32>,
    /// Pieces that are taken out of the text before anything else.
    user_defined: trie::Trie,
}

impl SentencePiece {
    /// Reads a `.model` file.
    pub(super) fn read(path: &Path) -> Result<SentencePiece, Error> {
        let malformed = |reason| Error::Malformed { path: path.to_path_buf(), reason };
        let model = ProtoModel::parse(&read(path)?).map_err(malformed)?;
        SentencePiece::new(model).map_err(malformed)
    }

    fn new(model: ProtoModel) -> Result<SentencePiece, String> {
        let vocabulary = Vocabulary::new(model.pieces)?;
        let trainer = model.trainer;
        if trainer.byte_fallback && vocabulary.byte_ids.len() != 256 {
            return Err("it falls back to bytes but lacks byte pieces".to_owned());
        }
        let algorithm = match trainer.kind {
            ModelKind::Bpe => Algorithm::Bpe,
            ModelKind::Unigram => Algorithm::Unigram(Unigram::new(&vocabulary.pieces)),
            ModelKind::Other(kind) => {
                return Err(format!(
                    "its model type {kind} is not supported: only unigram (1) and BPE (2) are"
                ));
            }
        };
        let control = |name: &str| {
            let id = vocabulary.id(name);
            let kind = vocabulary.pieces.get(id as usize).map(|piece| piece.kind);
            (kind == Some(PieceType::Control)).then_some(id)
        };
        let special = SpecialIds {
            bos: control(&trainer.bos_piece),
            eos: control(&trainer.eos_piece),
            pad: control(&trainer.pad_piece),
            unk: Some(vocabulary.unk),
        };
        let spec = &model.normalizer;
        Ok(SentencePiece {
            strips_first_space: spec.add_dummy_prefix || spec.remove_extra_whitespaces,
            strips_all_spaces: spec.remove_extra_whitespaces,
            normalizer: Normalizer::new(model.normalizer, trainer.treat_whitespace_as_suffix)?,
            vocabulary,
            algorithm,
            byte_fallback: trainer.byte_fallback,
            unk_surface: trainer.unk_surface,
            special,
        })
    }

    pub(super) fn special_ids(&self) -> SpecialIds {
        self.special
    }

    pub(super) fn vocab_size(&self) -> usize {
        self.vocabulary.pieces.len()
    }

    pub(super) fn piece(&self, id: u32) -> Option<String> {
        Some(self.vocabulary.pieces.get(id as usize)?.text.clone())
    }

    pub(super) fn encode(&self, text: &str) -> Vec<u32> {
        self.encode_at(text, Place::Start)
    }

    pub(super) fn encode_continuation(&self, text: &str) -> Vec<u32> {
        self.encode_at(text, Place::Middle)
    }

    /// The ids of a text that spells out bos, eos and padding.
    pub(super) fn encode_marked(&self, text: &str, first: bool) -> Vec<u32> {
        let SpecialIds { bos, eos, pad, .. } = self.special;
        let marks: Vec<(u32, &str)> = [bos, eos, pad]
            .into_iter()
            .flatten()
            .filter_map(|id| Some((id, self.vocabulary.pieces.get(id as usize)?.text.as_str())))
            .collect();
        let mut ids = Vec::new();
        let mut rest = text;
        let next = |rest: &str| {
            let found =
                marks.iter().filter_map(|(id, mark)| Some((rest.find(mark)?, *id, mark.len())));
            found.min()
        };
        while let Some((at, id, length)) = next(rest) {
            ids.extend(self.encode_part(&rest[..at], first && ids.is_empty()));
            ids.push(id);
            rest = &rest[at + length..];
        }
        ids.extend(self.encode_part(rest, first && ids.is_empty()));
        ids
    }

    fn encode_part(&self, text: &str, first: bool) -> Vec<u32> {
        if text.is_empty() {
            return Vec::new();
        }
        self.encode_at(text, if first { Place::Start } else { Place::Middle })
    }

    fn encode_at(&self, text: &str, place: Place) -> Vec<u32> {
        let normalized = self.normalizer.normalize(text, &self.vocabulary.user_defined, place);
        let pieces = match &self.algorithm {
            Algorithm::Bpe => bpe::encode(&normalized, &self.vocabulary),
            Algorithm::Unigram(unigram) => unigram.encode(&normalized, self.vocabulary.unk),
        };
        self.finish(&pieces)
    }

    /// Unknown pieces become bytes, or one unknown id per run of them.
    fn finish(&self, pieces: &[(&str, u32)]) -> Vec<u32> {
        let unk = self.vocabulary.unk;
        let mut ids: Vec<u32> = Vec::with_capacity(pieces.len());
        for (piece, id) in pieces {
            if *id != unk {
                ids.push(*id);
            } else if self.byte_fallback {
                ids.extend(piece.bytes().map(|byte| self.vocabulary.byte_ids[usize::from(byte)]));
            } else if ids.last() != Some(&unk) {
                ids.push(unk);
            }
        }
        ids
    }

    pub(super) fn decode(&self, ids: &[u32]) -> String {
        let mut text = String::new();
        let mut bytes = Vec::new();
        let mut first_space_seen = false;
        for id in ids {
            let Some(piece) = self.vocabulary.pieces.get(*id as usize) else { continue };
            if let PieceType::Byte(byte) = piece.kind {
                bytes.push(byte);
                continue;
            }
            flush_bytes(&mut bytes, &mut text);
            match piece.kind {
                PieceType::Control => {}
                PieceType::Unknown => text.push_str(&self.unk_surface),
                _ => {
                    let at_start = text.is_empty() && !first_space_seen;
                    let stripped = piece.text.strip_prefix(SPACE);
                    let own_space = at_start && self.strips_first_space && stripped.is_some();
                    first_space_seen |= own_space && !self.strips_all_spaces;
                    let spelled = stripped.filter(|_| own_space).unwrap_or(&piece.text);
                    text.push_str(&spelled.replace(SPACE, " "));
                }
            }
        }
        flush_bytes(&mut bytes, &mut text);
        text
    }
}

/// Appends the characters that `bytes` spell, U+FFFD for each byte that spells none.
fn flush_bytes(bytes: &mut Vec<u8>, text: &mut String) {
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| '\u{FFFD}'));
    }
    bytes.clear();
}

impl Vocabulary {
    fn new(pieces: Vec<proto_model::Piece>) -> Result<Vocabulary, String> {
        let mut text_ids = BTreeMap::new();
        let mut reserved_ids = BTreeMap::new();
        let mut byte_ids = BTreeMap::new();
        let mut user_defined = trie::Trie::default();
        let mut unk = None;
        for (id, piece) in (0u32..).zip(&pieces) {
            let ids = match piece.kind {
                PieceType::Normal | PieceType::UserDefined | PieceType::Unused => &mut text_ids,
                _ => &mut reserved_ids,
            };
            if piece.text.is_empty() || ids.insert(piece.text.clone(), id).is_some() {
                return Err(format!("piece {id} is empty or defined twice"));
            }
            match piece.kind {
                PieceType::UserDefined => user_defined.insert(piece.text.as_bytes(), id),
                PieceType::Unknown if unk.is_some() => {
                    return Err("it has two unknown pieces".to_owned());
                }
                PieceType::Unknown => unk = Some(id),
                PieceType::Byte(byte) => {
                    byte_ids.insert(byte, id);
                }
                _ => {}
            }
        }
        let unk = unk.ok_or("it has no unknown piece")?;
        let byte_ids = byte_ids.into_values().collect();
        Ok(Vocabulary { pieces, text_ids, reserved_ids, unk, byte_ids, user_defined })
    }

    /// The id of a piece; the unknown id for a text that is none.
    fn id(&self, piece: &str) -> u32 {
        let reserved = self.reserved_ids.get(piece);
        reserved.or_else(|| self.text_ids.get(piece)).copied().unwrap_or(self.unk)
    }
}
