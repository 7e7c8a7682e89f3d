//! Which files a tokenizer is made of, in a recipe and in a saved folder.

use super::Error;
use crate::base::atomic_file;
use crate::spec::job::TokenizerKind;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Version of the saved folder. 1: the first.
pub(super) const VERSION: u32 = 1;

/// The descriptor's name in a saved folder.
pub(super) const DESCRIPTOR: &str = "kind.json";

/// Names in a saved folder.
const JSON: &str = "tokenizer.json";
const CONFIG: &str = "tokenizer_config.json";
pub(super) const CHAT: &str = "chat_template.jinja";
const VOCABULARY: &str = "vocab.json";
const MERGES: &str = "merges.txt";
const MODEL: &str = "tokenizer.model";

/// What a saved folder says of itself.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Descriptor {
    pub(super) version: u32,
    pub(super) kind: TokenizerKind,
    /// Whether the samples made with it begin with the beginning-of-sequence token.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) add_bos: bool,
    /// The day that the chat template saw in those samples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) chat_date: Option<String>,
}

impl Descriptor {
    pub(super) fn read(folder: &Path) -> Result<Descriptor, Error> {
        let path = folder.join(DESCRIPTOR);
        let bytes = read(&path)?;
        let descriptor: Descriptor = serde_json::from_slice(&bytes)
            .map_err(|error| Error::Malformed { path: path.clone(), reason: error.to_string() })?;
        if descriptor.version != VERSION {
            let reason = format!("version {} is not known here", descriptor.version);
            return Err(Error::Malformed { path, reason });
        }
        Ok(descriptor)
    }

    pub(super) fn write(&self, folder: &Path) -> Result<(), Error> {
        let path = folder.join(DESCRIPTOR);
        let text = serde_json::to_string(self)
            .map_err(|error| Error::Malformed { path: path.clone(), reason: error.to_string() })?;
        atomic_file::write(&path, format!("{text}\n").as_bytes())
            .map_err(|source| Error::File { path, source })
    }
}

/// The files of one tokenizer with their names in a saved folder.
#[derive(Debug)]
pub(super) struct TokenizerFiles {
    pub(super) kind: TokenizerKind,
    files: Vec<(&'static str, PathBuf)>,
}

impl TokenizerFiles {
    /// The files that a recipe names.
    pub(super) fn of_recipe(
        kind: TokenizerKind,
        inputs: &BTreeMap<String, PathBuf>,
    ) -> Result<TokenizerFiles, Error> {
        let named = |name: &'static str| inputs.get(name).cloned().ok_or(Error::Missing(name));
        let files = match kind {
            TokenizerKind::Gpt2Bpe => vec![
                (VOCABULARY, named("tokenizer.vocab_file")?),
                (MERGES, named("tokenizer.merge_file")?),
            ],
            TokenizerKind::HuggingFace => json_files(&named("tokenizer.model")?),
            TokenizerKind::SentencePiece => vec![(MODEL, named("tokenizer.model")?)],
        };
        Ok(TokenizerFiles { kind, files })
    }

    /// The files of a saved folder.
    pub(super) fn saved(kind: TokenizerKind, folder: &Path) -> TokenizerFiles {
        let mut files = match kind {
            TokenizerKind::Gpt2Bpe => {
                vec![(VOCABULARY, folder.join(VOCABULARY)), (MERGES, folder.join(MERGES))]
            }
            TokenizerKind::HuggingFace => {
                return TokenizerFiles { kind, files: json_files(folder) };
            }
            TokenizerKind::SentencePiece => vec![(MODEL, folder.join(MODEL))],
        };
        files.extend(beside(folder, CHAT));
        TokenizerFiles { kind, files }
    }

    /// Every file with its name in a saved folder.
    pub(super) fn all(&self) -> &[(&'static str, PathBuf)] {
        &self.files
    }

    /// The file that the tokenizer is named after.
    pub(super) fn first(&self) -> &Path {
        self.files.first().map_or(Path::new(""), |(_, path)| path)
    }

    /// GPT-2's merges.
    pub(super) fn merges(&self) -> &Path {
        self.find(MERGES).unwrap_or(Path::new(""))
    }

    /// `tokenizer_config.json`, when the tokenizer has one.
    pub(super) fn config(&self) -> Option<&Path> {
        self.find(CONFIG)
    }

    /// The chat template beside the tokenizer: its own file, or `chat_template` of
    /// `tokenizer_config.json`, which is a text or a list of named ones.
    pub(super) fn chat_template(&self) -> Result<Option<String>, Error> {
        let malformed =
            |path: &Path, reason: String| Error::Malformed { path: path.into(), reason };
        if let Some(path) = self.find(CHAT) {
            let text = String::from_utf8(read(path)?);
            return text.map(Some).map_err(|error| malformed(path, error.to_string()));
        }
        let Some(path) = self.config() else { return Ok(None) };
        let config: Value = serde_json::from_slice(&read(path)?)
            .map_err(|error| malformed(path, error.to_string()))?;
        let Some(found) = config.get("chat_template") else { return Ok(None) };
        let named = |entry: &&Value| entry.get("name").and_then(Value::as_str) == Some("default");
        let default = || found.as_array()?.iter().find(named)?.get("template")?.as_str();
        Ok(found.as_str().or_else(default).map(str::to_owned))
    }

    fn find(&self, name: &str) -> Option<&Path> {
        self.files.iter().find(|(own, _)| *own == name).map(|(_, path)| path.as_path())
    }
}

/// A `tokenizer.json`, or a folder that holds one and perhaps a `tokenizer_config.json` and a
/// `chat_template.jinja`.
///
/// Beside a single file nothing else is read: it is not an input that the recipe names.
fn json_files(path: &Path) -> Vec<(&'static str, PathBuf)> {
    if !path.is_dir() {
        return vec![(JSON, path.to_path_buf())];
    }
    let mut files = vec![(JSON, path.join(JSON))];
    files.extend([CONFIG, CHAT].into_iter().filter_map(|name| beside(path, name)));
    files
}

/// The file `name` of a folder, where there is one.
fn beside(folder: &Path, name: &'static str) -> Option<(&'static str, PathBuf)> {
    let path = folder.join(name);
    path.exists().then_some((name, path))
}

/// The bytes of a file.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|source| Error::File { path: path.to_path_buf(), source })
}
