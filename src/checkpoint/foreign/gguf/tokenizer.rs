//! The tokenizer and the chat template in a GGUF file, as the files that a Hugging Face folder has.

use super::sentencepiece;
use crate::spec::job::TokenizerKind;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Kinds of tokens (`llama.h`, `llama_token_type`).
const CONTROL: i64 = 3;
const USER_DEFINED: i64 = 4;

/// The tokenizer's kind and its files by name: `tokenizer.json` of a byte-level BPE,
/// `tokenizer.model` of SentencePiece, and `tokenizer_config.json`; else why there is none.
pub fn files(
    metadata: &BTreeMap<String, Value>,
) -> Result<(TokenizerKind, BTreeMap<String, Vec<u8>>), String> {
    let metadata = Tokens(metadata);
    let (kind, class, name, file) = match metadata.text("tokenizer.ggml.model") {
        Some("gpt2") => {
            let file = byte_level_bpe(&metadata)?.to_string().into_bytes();
            (TokenizerKind::HuggingFace, "PreTrainedTokenizerFast", "tokenizer.json", file)
        }
        Some("llama") => {
            let file = sentencepiece::model(&metadata)?;
            (TokenizerKind::SentencePiece, "LlamaTokenizer", "tokenizer.model", file)
        }
        Some(other) => {
            return Err(format!(
                "its tokenizer is of kind `{other}`, and gpt2 (BPE) and llama (SentencePiece) are \
                 carried over"
            ));
        }
        None => return Err("it has no tokenizer".to_owned()),
    };
    let config = metadata.config(class, metadata.list("tokenizer.ggml.tokens")?);
    let files = [(name, file), ("tokenizer_config.json", config.to_string().into_bytes())];
    Ok((kind, files.map(|(name, bytes)| (name.to_owned(), bytes)).into()))
}

/// `tokenizer.json`.
fn byte_level_bpe(metadata: &Tokens<'_>) -> Result<Value, String> {
    let pieces = metadata.list("tokenizer.ggml.tokens")?;
    let vocabulary: Map<String, Value> = pieces
        .iter()
        .enumerate()
        .map(|(id, piece)| (piece.as_str().unwrap_or_default().to_owned(), id.into()))
        .collect();
    if vocabulary.len() != pieces.len() {
        return Err("its vocabulary has a token twice".to_owned());
    }
    Ok(json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": metadata.added(pieces),
        "normalizer": null,
        "pre_tokenizer": pre_tokenizer(metadata.text("tokenizer.ggml.pre"))?,
        "post_processor": null,
        "decoder": byte_level(),
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": null,
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": false,
            "byte_fallback": false,
            "vocab": vocabulary,
            "merges": metadata.list("tokenizer.ggml.merges")?,
        },
    }))
}

/// Metadata as a tokenizer is written in it.
pub(super) struct Tokens<'a>(&'a BTreeMap<String, Value>);

impl<'a> Tokens<'a> {
    pub(super) fn text(&self, key: &str) -> Option<&'a str> {
        self.0.get(key)?.as_str()
    }

    pub(super) fn flag(&self, key: &str) -> Option<bool> {
        self.0.get(key)?.as_bool()
    }

    /// The spelling of the token whose id `tokenizer.ggml.NAME_token_id` is.
    pub(super) fn named(&self, name: &str, pieces: &'a [Value]) -> Option<&'a str> {
        let id = self.0.get(&format!("tokenizer.ggml.{name}_token_id"))?.as_u64()?;
        pieces.get(usize::try_from(id).ok()?)?.as_str()
    }

    pub(super) fn list(&self, key: &str) -> Result<&'a [Value], String> {
        let list = self.0.get(key).and_then(Value::as_array);
        Ok(list.ok_or_else(|| format!("its metadata has no `{key}`"))?)
    }

    /// Tokens that are found in a text before it is cut.
    fn added(&self, pieces: &[Value]) -> Vec<Value> {
        let kinds = self.list("tokenizer.ggml.token_type").unwrap_or_default();
        let kind = |id: usize| kinds.get(id).and_then(Value::as_i64).unwrap_or(0);
        let added = |(id, piece): (usize, &Value)| {
            let special = kind(id) == CONTROL;
            (special || kind(id) == USER_DEFINED).then(|| {
                json!({
                    "id": id, "content": piece, "single_word": false, "lstrip": false,
                    "rstrip": false, "normalized": false, "special": special,
                })
            })
        };
        pieces.iter().enumerate().filter_map(added).collect()
    }

    fn config(&self, class: &str, pieces: &'a [Value]) -> Value {
        let mut config = json!({"tokenizer_class": class, "clean_up_tokenization_spaces": false});
        let keys = [("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")];
        for (key, id) in keys {
            if let Some(token) = self.named(id, pieces) {
                config[format!("{key}_token")] = token.into();
            }
        }
        for key in ["add_bos_token", "add_eos_token"] {
            if let Some(adds) = self.flag(&format!("tokenizer.ggml.{key}")) {
                config[key] = adds.into();
            }
        }
        if let Some(template) = self.text("tokenizer.chat_template") {
            config["chat_template"] = template.into();
        }
        if let Some(length) = self.0.get("llama.context_length") {
            config["model_max_length"] = length.clone();
        }
        config
    }
}

fn byte_level() -> Value {
    json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true})
}

/// How a text is cut before merging, by the name that llama.cpp gives it.
fn pre_tokenizer(name: Option<&str>) -> Result<Value, String> {
    match name {
        Some("smollm") => Ok(json!({
            "type": "Sequence",
            "pretokenizers": [{"type": "Digits", "individual_digits": true}, byte_level()],
        })),
        None | Some("default" | "gpt-2") => Ok(byte_level()),
        Some(other) => Err(format!("its texts are cut as `{other}` says, which is not known here")),
    }
}
