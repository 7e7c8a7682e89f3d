//! The recipe's `model.tokenizer` section.

use super::choice::TokenizerLibrary;
use schemars::JsonSchema;
use serde::Deserialize;

/// Which tokenizer, and its files.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tokenizer {
    /// Where it comes from.
    pub library: Option<TokenizerLibrary>,
    /// Its name: `GPT2BPETokenizer` for megatron; a folder with a `tokenizer.json` for huggingface.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// Its file: a `tokenizer.json` for huggingface, a `.model` for sentencepiece.
    pub model: Option<String>,
    /// `vocab.json` (megatron).
    pub vocab_file: Option<String>,
    /// `merges.txt` (megatron).
    pub merge_file: Option<String>,
    /// A Hugging Face chat template for conversations, in place of the one that comes with the tokenizer.
    pub chat_template: Option<String>,
    /// Separator of tables.
    pub delimiter: Option<String>,
    /// NeMo's older way with special tokens of SentencePiece.
    pub sentencepiece_legacy: Option<bool>,
    /// The file as a packed checkpoint names it; `model` decides.
    pub tokenizer_model: Option<String>,
    /// Use the fast form of a Hugging Face tokenizer.
    pub use_fast: Option<bool>,
}
