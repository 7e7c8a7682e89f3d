//! Tokenizers of encoders: a text between the special tokens that such models expect, cut to a length.

use super::Error;
use super::files::read;
use super::huggingface::malformed;
use serde_json::Value;
use std::path::Path;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::processors::bert::BertProcessing;
use tokenizers::{AddedToken, Tokenizer, TruncationParams};

/// A tokenizer that frames what it reads, such as `[CLS] … [SEP]`.
#[derive(Debug)]
pub struct FramedTokenizer(Tokenizer);

impl FramedTokenizer {
    /// Opens the tokenizer of a Hugging Face folder: `tokenizer.json`, else BERT's `vocab.txt`. Of a
    /// text that has more than `longest` tokens, special ones included, the first are taken.
    pub fn open(folder: &Path, longest: usize) -> Result<FramedTokenizer, Error> {
        let json = folder.join("tokenizer.json");
        let (path, mut tokenizer) = if json.exists() {
            let tokenizer = Tokenizer::from_bytes(read(&json)?).map_err(malformed(&json))?;
            (json, tokenizer)
        } else {
            (folder.join("vocab.txt"), word_piece(folder)?)
        };
        tokenizer.with_padding(None);
        let cut = TruncationParams { max_length: longest, ..TruncationParams::default() };
        tokenizer.with_truncation(Some(cut)).map_err(malformed(&path))?;
        Ok(FramedTokenizer(tokenizer))
    }

    /// The ids of `text`, special tokens included.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, Error> {
        let encoding = self.0.encode_fast(text, true);
        Ok(encoding.map_err(|error| Error::Encode(error.to_string()))?.get_ids().to_vec())
    }
}

/// BERT's tokenizer from its list of pieces.
fn word_piece(folder: &Path) -> Result<Tokenizer, Error> {
    let path = folder.join("vocab.txt");
    // Reading first, so that a missing file is named as such.
    read(&path)?;
    let model = WordPiece::from_file(&path.to_string_lossy()).unk_token("[UNK]".to_owned()).build();
    let mut tokenizer = Tokenizer::new(model.map_err(malformed(&path))?);
    let config = folder.join("tokenizer_config.json");
    let config: Value = if config.exists() {
        let parsed = serde_json::from_slice(&read(&config)?);
        parsed.map_err(|error| malformed(&config)(error.to_string().into()))?
    } else {
        Value::Null
    };
    let lowercase = config["do_lower_case"].as_bool().unwrap_or(true);
    let normalizer = BertNormalizer::new(true, true, None, lowercase);
    tokenizer.with_normalizer(Some(normalizer)).map_err(malformed(&path))?;
    tokenizer.with_pre_tokenizer(Some(BertPreTokenizer));
    let special = |name: &str| {
        let id = tokenizer.token_to_id(name);
        let lacks = || malformed(&path)(format!("it has no {name}").into());
        id.map(|id| (name.to_owned(), id)).ok_or_else(lacks)
    };
    let processing = BertProcessing::new(special("[SEP]")?, special("[CLS]")?);
    tokenizer.with_post_processor(Some(processing));
    let names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
    let names = names.map(|name| AddedToken::from(name, true));
    tokenizer.add_special_tokens(names).map_err(malformed(&path))?;
    Ok(tokenizer)
}
