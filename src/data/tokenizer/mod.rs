//! Text to ids and back: GPT-2 BPE, Hugging Face `tokenizer.json`, SentencePiece.
//!
//! A tokenizer is opened from the user's files ([`Tokenizer::load`]), kept in a stage's output as a
//! folder with a descriptor ([`Tokenizer::save`]) and opened again from there
//! ([`Tokenizer::open`]). Ids are those of the original programs.

mod files;
mod framed;
mod huggingface;
mod joining;
mod sentencepiece;
mod train;

pub use framed::FramedTokenizer;
pub use train::{TrainRequest, TrainText, train};

use crate::base::atomic_file;
use crate::spec::job::TokenizerKind;
use files::{Descriptor, TokenizerFiles};
use huggingface::HuggingFace;
use sentencepiece::SentencePiece;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// What can go wrong with a tokenizer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read or written.
    #[error("cannot use `{}`: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A file does not hold a tokenizer of the expected kind.
    #[error("`{}` does not hold a usable tokenizer: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A file was not named.
    #[error("the tokenizer needs `{0}`: set `model.{0}` in the recipe")]
    Missing(&'static str),
    /// A text cannot be tokenized.
    #[error("cannot tokenize: {0}")]
    Encode(String),
    /// A tokenizer cannot be trained.
    #[error("cannot train a tokenizer: {0}")]
    Train(String),
}

/// Ids with a meaning of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpecialIds {
    /// Beginning of a sequence.
    pub bos: Option<u32>,
    /// End of a sequence.
    pub eos: Option<u32>,
    /// Padding.
    pub pad: Option<u32>,
    /// What unknown text becomes.
    pub unk: Option<u32>,
}

/// A tokenizer, ready to use from several threads.
#[derive(Debug)]
pub struct Tokenizer {
    engine: Engine,
    special: SpecialIds,
    vocab_size: usize,
    space_sensitive: bool,
    /// Whether the samples made with it begin with the beginning-of-sequence token.
    add_bos: bool,
    /// The chat template in place of the one among the files.
    chat_template: Option<String>,
    /// The day that the chat template sees.
    chat_date: Option<String>,
    files: TokenizerFiles,
}

#[derive(Debug)]
enum Engine {
    HuggingFace(Box<HuggingFace>),
    SentencePiece(Box<SentencePiece>),
}

impl Tokenizer {
    /// Opens a tokenizer from the files of a recipe, named as [`crate::spec::job::Job`] names them:
    /// `tokenizer.model`, or `tokenizer.vocab_file` and `tokenizer.merge_file`.
    pub fn load(
        kind: TokenizerKind,
        inputs: &BTreeMap<String, PathBuf>,
    ) -> Result<Tokenizer, Error> {
        Tokenizer::from_files(TokenizerFiles::of_recipe(kind, inputs)?)
    }

    /// Opens a folder that [`save`](Tokenizer::save) wrote.
    pub fn open(folder: &Path) -> Result<Tokenizer, Error> {
        let descriptor = Descriptor::read(folder)?;
        let Descriptor { kind, add_bos, chat_date, .. } = descriptor;
        Ok(Tokenizer { add_bos, chat_date, ..Tokenizer::of_folder(kind, folder)? })
    }

    /// Opens a folder whose files have the names that [`save`](Tokenizer::save) gives them, without
    /// its descriptor.
    pub fn of_folder(kind: TokenizerKind, folder: &Path) -> Result<Tokenizer, Error> {
        Tokenizer::from_files(TokenizerFiles::saved(kind, folder))
    }

    /// Whether `folder` has a descriptor, so that [`open`](Tokenizer::open) reads it.
    pub fn is_saved(folder: &Path) -> bool {
        folder.join(files::DESCRIPTOR).is_file()
    }

    /// Writes the tokenizer's files, its chat template and their descriptor, `kind.json`, into
    /// `folder`.
    pub fn save(&self, folder: &Path) -> Result<(), Error> {
        let write = |name: &str, bytes: &[u8]| {
            let path = folder.join(name);
            atomic_file::write(&path, bytes).map_err(|source| Error::File { path, source })
        };
        for (name, path) in self.files.all() {
            write(name, &files::read(path)?)?;
        }
        if let Some(template) = &self.chat_template {
            write(files::CHAT, template.as_bytes())?;
        }
        let (version, kind, add_bos) = (files::VERSION, self.files.kind, self.add_bos);
        Descriptor { version, kind, add_bos, chat_date: self.chat_date.clone() }.write(folder)
    }

    /// The same tokenizer, remembering whether the samples made with it begin with the
    /// beginning-of-sequence token; prompts then begin with it too.
    #[must_use]
    pub fn with_bos(self, add_bos: bool) -> Tokenizer {
        Tokenizer { add_bos, ..self }
    }

    /// The same tokenizer with another chat template; none leaves it the one that it has.
    #[must_use]
    pub fn with_chat_template(self, template: Option<String>) -> Tokenizer {
        Tokenizer { chat_template: template.or(self.chat_template), ..self }
    }

    /// The same tokenizer, remembering the day that its chat template sees, such as `2024-07-26`.
    #[must_use]
    pub fn with_chat_date(self, chat_date: Option<String>) -> Tokenizer {
        Tokenizer { chat_date, ..self }
    }

    /// Whether prompts begin with the beginning-of-sequence token where nothing else is said.
    pub fn add_bos(&self) -> bool {
        self.add_bos
    }

    /// The kind.
    pub fn kind(&self) -> TokenizerKind {
        self.files.kind
    }

    /// The ids of `text` as the beginning of a text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, Error> {
        match &self.engine {
            Engine::HuggingFace(engine) => engine.encode(text),
            Engine::SentencePiece(engine) => Ok(engine.encode(text)),
        }
    }

    /// The ids of `text` as something that follows other text.
    ///
    /// Tokenizers that put a space of their own before a text (SentencePiece's dummy prefix) do not
    /// put it here: ` word` continues a text with one space, not with two.
    pub fn encode_continuation(&self, text: &str) -> Result<Vec<u32>, Error> {
        match &self.engine {
            Engine::HuggingFace(engine) => engine.encode_continuation(text),
            Engine::SentencePiece(engine) => Ok(engine.encode_continuation(text)),
        }
    }

    /// The ids of a text in which special tokens are spelled out, as chat templates write them;
    /// `first` says whether it begins the whole text.
    ///
    /// After a special token a text goes on as after any other: no space is put before it.
    pub fn encode_marked(&self, text: &str, first: bool) -> Result<Vec<u32>, Error> {
        match &self.engine {
            // These find the special tokens by themselves.
            Engine::HuggingFace(_) if first => self.encode(text),
            Engine::HuggingFace(_) => self.encode_continuation(text),
            Engine::SentencePiece(engine) => Ok(engine.encode_marked(text, first)),
        }
    }

    /// The names that chat templates give to special tokens, each with its spelling.
    pub fn special_texts(&self) -> Vec<(&'static str, String)> {
        let SpecialIds { bos, eos, pad, unk } = self.special;
        let named =
            [("bos_token", bos), ("eos_token", eos), ("pad_token", pad), ("unk_token", unk)];
        let text = |(name, id): (&'static str, Option<u32>)| Some((name, self.piece(id?)?));
        named.into_iter().filter_map(text).collect()
    }

    /// The chat template that it was given, or that came with its files, if any.
    pub fn chat_template(&self) -> Result<Option<String>, Error> {
        match &self.chat_template {
            Some(template) => Ok(Some(template.clone())),
            None => self.files.chat_template(),
        }
    }

    /// The day that the chat template sees, if it sees one.
    pub fn chat_date(&self) -> Option<&str> {
        self.chat_date.as_deref()
    }

    /// The text of `ids`; special tokens have none. Bytes that are not UTF-8 become U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> Result<String, Error> {
        match &self.engine {
            Engine::HuggingFace(engine) => engine.decode(ids),
            Engine::SentencePiece(engine) => Ok(engine.decode(ids)),
        }
    }

    /// Whether `text`, to which `ids` decode, is whole: what follows is decoded behind it, and depends
    /// on nothing before `ids`.
    ///
    /// It is not where it may end inside a character, or has no text at all, so that what follows may
    /// count as a text's beginning; nor where nothing is known of how the tokenizer joins tokens.
    pub fn is_whole(&self, ids: &[u32], text: &str) -> bool {
        let ends = !text.is_empty() && !text.ends_with(char::REPLACEMENT_CHARACTER);
        ends && match &self.engine {
            Engine::HuggingFace(engine) => engine.ends_with(ids),
            Engine::SentencePiece(_) => true,
        }
    }

    /// The spelling of one id in the vocabulary; none when there is no such id.
    pub fn piece(&self, id: u32) -> Option<String> {
        match &self.engine {
            Engine::HuggingFace(engine) => engine.piece(id),
            Engine::SentencePiece(engine) => engine.piece(id),
        }
    }

    /// Number of ids: one more than the largest.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// Ids with a meaning of their own.
    pub fn special(&self) -> SpecialIds {
        self.special
    }

    /// The beginning-of-sequence id.
    pub fn bos(&self) -> Option<u32> {
        self.special.bos
    }

    /// The end-of-sequence id.
    pub fn eos(&self) -> Option<u32> {
        self.special.eos
    }

    /// Whether a space before a piece of text changes its ids: `x y` is not `x` and `y`
    /// (NeMo, `sentencepiece_tokenizer.py`, `space_sensitive`).
    pub fn space_sensitive(&self) -> bool {
        self.space_sensitive
    }

    fn from_files(files: TokenizerFiles) -> Result<Tokenizer, Error> {
        let (engine, special) = match files.kind {
            TokenizerKind::Gpt2Bpe => {
                let engine = HuggingFace::gpt2(&files)?;
                let special = engine.special_ids(&files)?;
                (Engine::HuggingFace(Box::new(engine)), special)
            }
            TokenizerKind::HuggingFace => {
                let engine = HuggingFace::from_json(&files)?;
                let special = engine.special_ids(&files)?;
                (Engine::HuggingFace(Box::new(engine)), special)
            }
            TokenizerKind::SentencePiece => {
                let engine = SentencePiece::read(files.first())?;
                let special = engine.special_ids();
                (Engine::SentencePiece(Box::new(engine)), special)
            }
        };
        let vocab_size = match &engine {
            Engine::HuggingFace(engine) => engine.vocab_size(),
            Engine::SentencePiece(engine) => engine.vocab_size(),
        };
        let mut tokenizer = Tokenizer {
            engine,
            special,
            vocab_size,
            space_sensitive: true,
            add_bos: false,
            chat_template: None,
            chat_date: None,
            files,
        };
        let apart = [tokenizer.encode("x")?, tokenizer.encode("y")?].concat();
        tokenizer.space_sensitive = tokenizer.encode("x y")? != apart;
        Ok(tokenizer)
    }
}
