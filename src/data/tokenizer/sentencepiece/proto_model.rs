//! What a `.model` file holds (google/sentencepiece, `sentencepiece_model.proto`).

use super::protobuf::{Fields, Value};

/// The parts of a model that encoding and decoding need.
#[derive(Debug, Default)]
pub(super) struct ProtoModel {
    pub(super) pieces: Vec<Piece>,
    pub(super) trainer: TrainerSpec,
    pub(super) normalizer: NormalizerSpec,
}

/// One entry of the vocabulary.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Piece {
    pub(super) text: String,
    pub(super) score: f32,
    pub(super) kind: PieceType,
}

/// What a piece is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PieceType {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Unused,
    Byte(u8),
}

/// Which algorithm segments text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ModelKind {
    Unigram,
    Bpe,
    Other(u64),
}

/// `TrainerSpec`; defaults are the proto's.
#[derive(Debug)]
pub(super) struct TrainerSpec {
    pub(super) kind: ModelKind,
    pub(super) treat_whitespace_as_suffix: bool,
    pub(super) byte_fallback: bool,
    pub(super) unk_surface: String,
    pub(super) bos_piece: String,
    pub(super) eos_piece: String,
    pub(super) pad_piece: String,
}

impl Default for TrainerSpec {
    fn default() -> TrainerSpec {
        TrainerSpec {
            kind: ModelKind::Unigram,
            treat_whitespace_as_suffix: false,
            byte_fallback: false,
            unk_surface: " \u{2047} ".to_owned(),
            bos_piece: "<s>".to_owned(),
            eos_piece: "</s>".to_owned(),
            pad_piece: "<pad>".to_owned(),
        }
    }
}

/// `NormalizerSpec`; defaults are the proto's.
#[derive(Debug)]
pub(super) struct NormalizerSpec {
    pub(super) charsmap: Vec<u8>,
    pub(super) add_dummy_prefix: bool,
    pub(super) remove_extra_whitespaces: bool,
    pub(super) escape_whitespaces: bool,
}

impl Default for NormalizerSpec {
    fn default() -> NormalizerSpec {
        NormalizerSpec {
            charsmap: Vec::new(),
            add_dummy_prefix: true,
            remove_extra_whitespaces: true,
            escape_whitespaces: true,
        }
    }
}

impl ProtoModel {
    pub(super) fn parse(bytes: &[u8]) -> Result<ProtoModel, String> {
        let mut model = ProtoModel::default();
        let mut denormalizer = NormalizerSpec::default();
        for field in Fields::of(bytes) {
            let (number, value) = field?;
            match number {
                1 => model.pieces.push(Piece::parse(message(value, "pieces")?)?),
                2 => model.trainer.parse(message(value, "trainer_spec")?)?,
                3 => model.normalizer.parse(message(value, "normalizer_spec")?)?,
                5 => denormalizer.parse(message(value, "denormalizer_spec")?)?,
                _ => {}
            }
        }
        if model.pieces.is_empty() {
            return Err("it is not a SentencePiece model (it has no pieces)".to_owned());
        }
        if !denormalizer.charsmap.is_empty() {
            return Err("it has denormalization rules, which are not supported".to_owned());
        }
        Ok(model)
    }
}

impl Piece {
    fn parse(bytes: &[u8]) -> Result<Piece, String> {
        let (mut text, mut score, mut kind) = (String::new(), 0.0, 1);
        for field in Fields::of(bytes) {
            let (number, value) = field?;
            match number {
                1 => value.text().ok_or("a piece is not text")?.clone_into(&mut text),
                2 => score = value.float().ok_or("a score is not a number")?,
                3 => kind = value.varint().ok_or("a piece has no type")?,
                _ => {}
            }
        }
        let kind = match kind {
            1 => PieceType::Normal,
            2 => PieceType::Unknown,
            3 => PieceType::Control,
            4 => PieceType::UserDefined,
            5 => PieceType::Unused,
            6 => PieceType::Byte(byte_of(&text).ok_or_else(|| format!("`{text}` is no byte"))?),
            _ => return Err(format!("piece `{text}` has the unknown type {kind}")),
        };
        Ok(Piece { text, score, kind })
    }
}

/// The byte that `<0x0A>` stands for.
fn byte_of(piece: &str) -> Option<u8> {
    let digits = piece.strip_prefix("<0x")?.strip_suffix('>')?;
    if digits.len() != 2 {
        return None;
    }
    u8::from_str_radix(digits, 16).ok()
}

impl TrainerSpec {
    fn parse(&mut self, bytes: &[u8]) -> Result<(), String> {
        for field in Fields::of(bytes) {
            let (number, value) = field?;
            let text = || value.text().map(str::to_owned).ok_or("a trainer setting is not text");
            match number {
                3 => {
                    self.kind = match value.varint() {
                        Some(1) => ModelKind::Unigram,
                        Some(2) => ModelKind::Bpe,
                        other => ModelKind::Other(other.unwrap_or_default()),
                    }
                }
                24 => self.treat_whitespace_as_suffix = value.boolean().unwrap_or_default(),
                35 => self.byte_fallback = value.boolean().unwrap_or_default(),
                44 => self.unk_surface = text()?,
                46 => self.bos_piece = text()?,
                47 => self.eos_piece = text()?,
                48 => self.pad_piece = text()?,
                _ => {}
            }
        }
        Ok(())
    }
}

impl NormalizerSpec {
    fn parse(&mut self, bytes: &[u8]) -> Result<(), String> {
        for field in Fields::of(bytes) {
            let (number, value) = field?;
            match number {
                2 => self.charsmap = message(value, "precompiled_charsmap")?.to_vec(),
                3 => self.add_dummy_prefix = value.boolean().unwrap_or(true),
                4 => self.remove_extra_whitespaces = value.boolean().unwrap_or(true),
                5 => self.escape_whitespaces = value.boolean().unwrap_or(true),
                _ => {}
            }
        }
        Ok(())
    }
}

fn message<'a>(value: Value<'a>, name: &str) -> Result<&'a [u8], String> {
    value.bytes().ok_or_else(|| format!("`{name}` is not a message"))
}
