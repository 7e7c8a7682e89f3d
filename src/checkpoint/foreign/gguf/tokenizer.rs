//! The byte-level BPE tokenizer and the chat template in a GGUF file, as Hugging Face's files.

use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Kinds of tokens (`llama.h`, `llama_token_type`).
const CONTROL: i64 = 3;
const USER_DEFINED: i64 = 4;

/// `tokenizer.json` and `tokenizer_config.json`; else why there is none.
pub fn files(metadata: &BTreeMap<String, Value>) -> Result<[(String, Vec<u8>); 2], String> {
    let metadata = Tokens(metadata);
    match metadata.text("tokenizer.ggml.model") {
        Some("gpt2") => {}
        Some(other) => {
            return Err(format!(
                "its tokenizer is of kind `{other}`, and gpt2 (BPE) is carried over"
            ));
        }
        None => return Err("it has no tokenizer".to_owned()),
    }
    let pieces = metadata.list("tokenizer.ggml.tokens")?;
    let vocabulary: Map<String, Value> = pieces
        .iter()
        .enumerate()
        .map(|(id, piece)| (piece.as_str().unwrap_or_default().to_owned(), id.into()))
        .collect();
    if vocabulary.len() != pieces.len() {
        return Err("its vocabulary has a token twice".to_owned());
    }
    let tokenizer = json!({
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
    });
    let config = metadata.config(pieces);
    let text = |value: &Value| value.to_string().into_bytes();
    Ok([
        ("tokenizer.json".to_owned(), text(&tokenizer)),
        ("tokenizer_config.json".to_owned(), text(&config)),
    ])
}

struct Tokens<'a>(&'a BTreeMap<String, Value>);

impl<'a> Tokens<'a> {
    fn text(&self, key: &str) -> Option<&'a str> {
        self.0.get(key)?.as_str()
    }

    fn list(&self, key: &str) -> Result<&'a [Value], String> {
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

    fn config(&self, pieces: &[Value]) -> Value {
        let token = |key: &str| {
            let id = self.0.get(&format!("tokenizer.ggml.{key}_token_id"))?.as_u64()?;
            pieces.get(usize::try_from(id).ok()?).cloned()
        };
        let mut config = json!({
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": false,
        });
        let keys = [("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")];
        for (key, id) in keys {
            if let Some(token) = token(id) {
                config[format!("{key}_token")] = token;
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
