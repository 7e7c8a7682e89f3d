//! The SentencePiece tokenizer in a GGUF file, as the `.model` file that it was made of.
//!
//! The file is a message of google/sentencepiece's `sentencepiece_model.proto` in the wire format of
//! protocol buffers. llama.cpp keeps pieces, scores and types (whose numbers are the proto's own) of
//! BPE models without normalization rules.

use super::tokenizer::Tokens;
use serde_json::Value;

/// Types of pieces.
const NORMAL: u64 = 1;
const UNKNOWN: u64 = 2;
const BYTE: u64 = 6;
/// `TrainerSpec.model_type`.
const BPE: u64 = 2;

/// The bytes of the `.model` file.
pub(super) fn model(metadata: &Tokens<'_>) -> Result<Vec<u8>, String> {
    let pieces = metadata.list("tokenizer.ggml.tokens")?;
    let scores = metadata.list("tokenizer.ggml.scores").unwrap_or_default();
    let types = metadata.list("tokenizer.ggml.token_type").unwrap_or_default();
    let unknown = metadata.named("unknown", pieces).unwrap_or("<unk>");
    let mut model = Message::default();
    let mut has_bytes = false;
    for (id, piece) in pieces.iter().enumerate() {
        let text = piece.as_str().ok_or_else(|| format!("its token {id} is not a text"))?;
        let given = types.get(id).and_then(Value::as_u64);
        let usual = if text == unknown { UNKNOWN } else { NORMAL };
        let kind = given.unwrap_or(usual);
        has_bytes |= kind == BYTE;
        let mut entry = Message::default();
        entry.bytes(1, text.as_bytes());
        // A score that is no number is one that no merge comes to.
        let score = scores.get(id).and_then(Value::as_f64).unwrap_or(-1e10);
        entry.float(2, score as f32);
        entry.number(3, kind);
        model.bytes(1, &entry.0);
    }
    model.bytes(2, &trainer(metadata, pieces, has_bytes).0);
    let mut normalizer = Message::default();
    normalizer.bytes(1, b"identity");
    let flag = |key: &str| metadata.flag(&format!("tokenizer.ggml.{key}"));
    normalizer.number(3, flag("add_space_prefix").unwrap_or(true).into());
    normalizer.number(4, flag("remove_extra_whitespaces").unwrap_or(false).into());
    normalizer.number(5, 1);
    model.bytes(3, &normalizer.0);
    Ok(model.0)
}

/// `TrainerSpec`: what encoding needs of it.
fn trainer(metadata: &Tokens<'_>, pieces: &[Value], has_bytes: bool) -> Message {
    let mut trainer = Message::default();
    trainer.number(3, BPE);
    trainer.number(4, pieces.len() as u64);
    trainer.number(35, has_bytes.into());
    for (number, name) in [(45, "unknown"), (46, "bos"), (47, "eos"), (48, "padding")] {
        if let Some(text) = metadata.named(name, pieces) {
            trainer.bytes(number, text.as_bytes());
        }
    }
    trainer
}

/// A message being written.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value > 127 {
            self.0.push(value as u8 | 128);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    /// Wire type 0.
    fn number(&mut self, field: u64, value: u64) {
        self.varint(field << 3);
        self.varint(value);
    }

    /// Wire type 2.
    fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.varint(field << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    /// Wire type 5.
    fn float(&mut self, field: u64, value: f32) {
        self.varint(field << 3 | 5);
        self.0.extend_from_slice(&value.to_le_bytes());
    }
}
