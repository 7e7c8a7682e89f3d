//! Tokenizers of the `tokenizers` crate: `tokenizer.json`, and GPT-2's `vocab.json` with `merges.txt`.

use super::files::{TokenizerFiles, read};
use super::joining::Joining;
use super::{Error, SpecialIds};
use serde_json::Value;
use std::path::Path;
use tokenizers::models::bpe::BPE;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, Tokenizer};

/// GPT-2's only special token.
pub(super) const END_OF_TEXT: &str = "<|endoftext|>";

/// Names of special tokens, most telling first, for a `tokenizer.json` without a config beside it.
const EOS_NAMES: &[&str] =
    &["<|endoftext|>", "</s>", "<eos>", "<|end_of_text|>", "<|im_end|>", "[EOS]", "[SEP]"];
const BOS_NAMES: &[&str] =
    &["<s>", "<bos>", "<|begin_of_text|>", "<|startoftext|>", "[BOS]", "[CLS]", "<|endoftext|>"];
const PAD_NAMES: &[&str] = &["<pad>", "<|pad|>", "[PAD]", "<|finetune_right_pad_id|>"];
const UNK_NAMES: &[&str] = &["<unk>", "[UNK]"];

/// A tokenizer of the `tokenizers` crate.
#[derive(Debug)]
pub(super) struct HuggingFace {
    tokenizer: Tokenizer,
    /// Whether it puts a space before a text.
    adds_space: bool,
    joining: Joining,
}

impl HuggingFace {
    /// A `tokenizer.json`.
    pub(super) fn from_json(files: &TokenizerFiles) -> Result<HuggingFace, Error> {
        let path = files.first();
        let bytes = read(path)?;
        let tokenizer = Tokenizer::from_bytes(bytes).map_err(malformed(path))?;
        Ok(HuggingFace::new(tokenizer))
    }

    /// GPT-2's byte-level BPE.
    pub(super) fn gpt2(files: &TokenizerFiles) -> Result<HuggingFace, Error> {
        // Reading first, so that a missing file is named as such.
        read(files.first())?;
        read(files.merges())?;
        let names = [files.first().to_string_lossy(), files.merges().to_string_lossy()];
        let model = BPE::from_file(&names[0], &names[1]).build();
        let mut tokenizer = Tokenizer::new(model.map_err(malformed(files.first()))?);
        let byte_level = ByteLevel::new(false, false, true);
        tokenizer.with_pre_tokenizer(Some(byte_level));
        tokenizer.with_decoder(Some(byte_level));
        if tokenizer.token_to_id(END_OF_TEXT).is_some() {
            tokenizer
                .add_special_tokens([AddedToken::from(END_OF_TEXT, true)])
                .map_err(malformed(files.first()))?;
        }
        Ok(HuggingFace::new(tokenizer))
    }

    fn new(mut tokenizer: Tokenizer) -> HuggingFace {
        // A file may carry the cut and the padding of the program that saved it. Samples are cut by
        // the recipe's rules and never padded, so both are taken off, as Transformers does per call.
        let _ = tokenizer.with_truncation(None);
        tokenizer.with_padding(None);
        let mut engine = HuggingFace {
            joining: Joining::of(tokenizer.get_decoder()),
            tokenizer,
            adds_space: false,
        };
        let first = engine.encode("x").ok().and_then(|ids| engine.piece(*ids.first()?));
        // The marks of a space in Metaspace's and in byte-level spelling.
        engine.adds_space = first.is_some_and(|piece| piece.starts_with(['\u{2581}', '\u{120}']));
        engine
    }

    pub(super) fn encode(&self, text: &str) -> Result<Vec<u32>, Error> {
        let encoding = self.tokenizer.encode_fast(text, false);
        let encoding = encoding.map_err(|error| Error::Encode(error.to_string()))?;
        Ok(encoding.get_ids().to_vec())
    }

    pub(super) fn encode_continuation(&self, text: &str) -> Result<Vec<u32>, Error> {
        match text.strip_prefix(' ') {
            Some(rest) if self.adds_space => self.encode(rest),
            _ => self.encode(text),
        }
    }

    pub(super) fn decode(&self, ids: &[u32]) -> Result<String, Error> {
        self.tokenizer.decode(ids, true).map_err(|error| Error::Encode(error.to_string()))
    }

    /// Whether decoding joins what follows `ids` to their text and changes nothing in it, given that
    /// the text ends with a whole character.
    pub(super) fn ends_with(&self, ids: &[u32]) -> bool {
        let added = self.tokenizer.get_added_vocabulary();
        let is_special = |piece: &String| added.is_special_token(piece);
        match self.joining {
            Joining::Unknown => false,
            Joining::Tokens => true,
            Joining::RunsOfBytes => {
                let mut pieces = ids.iter().rev().filter_map(|id| self.piece(*id));
                let last = pieces.find(|piece| !is_special(piece));
                last.is_some_and(|piece| !(piece.len() == 6 && piece.starts_with("<0x")))
            }
        }
    }

    pub(super) fn piece(&self, id: u32) -> Option<String> {
        self.tokenizer.id_to_token(id)
    }

    pub(super) fn vocab_size(&self) -> usize {
        let largest = self.tokenizer.get_vocab(true).into_values().max();
        largest.map_or(0, |id| id as usize + 1)
    }

    /// What `tokenizer_config.json` says; without it, special tokens with well-known names.
    pub(super) fn special_ids(&self, files: &TokenizerFiles) -> Result<SpecialIds, Error> {
        let Some(path) = files.config() else {
            let special = SpecialIds {
                bos: self.named(BOS_NAMES),
                eos: self.named(EOS_NAMES),
                pad: self.named(PAD_NAMES),
                unk: self.named(UNK_NAMES),
            };
            return Ok(special);
        };
        let config: Value = serde_json::from_slice(&read(path)?)
            .map_err(|error| malformed(path)(error.to_string().into()))?;
        let id = |key: &str| {
            let token = config.get(key)?;
            let name = token.as_str().or_else(|| token.get("content")?.as_str())?;
            self.tokenizer.token_to_id(name)
        };
        Ok(SpecialIds {
            bos: id("bos_token"),
            eos: id("eos_token"),
            pad: id("pad_token"),
            unk: id("unk_token"),
        })
    }

    /// The first of `names` that is a special token.
    fn named(&self, names: &[&str]) -> Option<u32> {
        let added = self.tokenizer.get_added_tokens_decoder();
        names.iter().find_map(|name| {
            let id = self.tokenizer.token_to_id(name)?;
            added.get(&id).filter(|token| token.special).map(|_| id)
        })
    }
}

/// Makes the crate's error ours.
pub(super) fn malformed(path: &Path) -> impl Fn(tokenizers::Error) -> Error {
    move |error| Error::Malformed { path: path.to_path_buf(), reason: error.to_string() }
}
