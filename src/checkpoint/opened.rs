//! A checkpoint of any program, opened by what it is.

use super::error::Error;
use super::foreign::nemo::{self, Wanted};
use super::foreign::reader::{Loose, Reader};
use super::foreign::{gguf, hugging_face};
use super::format::{self, Format};
use super::native::Checkpoint;
use super::source::Source;
use crate::spec::architecture::Architecture;
use crate::spec::job::TokenizerKind;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// A tokenizer that lies in a checkpoint: its files by the names that they have in a folder.
#[derive(Clone, Debug)]
pub struct Carried {
    /// Its kind.
    pub kind: TokenizerKind,
    /// Names and bytes.
    pub files: BTreeMap<String, Vec<u8>>,
}

/// An opened checkpoint.
#[derive(Debug)]
pub struct Opened {
    /// Which program's it is.
    pub format: Format,
    /// The layout that it was saved at, tensor- and pipeline-parallel ranks, if the format has one.
    pub layout: Option<[usize; 2]>,
    /// The tokenizer in it; the reason why there is none when it has one that is not read.
    pub tokenizer: Result<Option<Carried>, String>,
    /// Whether rows of its vocabulary may be padding that nothing in it tells from ids, as in NeMo's
    /// and Megatron-LM's checkpoints.
    pub may_be_padded: bool,
    /// Whether its queries, keys and values are read in Megatron's old order.
    pub legacy_order: bool,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Native(Box<Checkpoint>),
    Foreign(Box<Reader>),
}

impl Opened {
    /// Opens what lies at `path`, whatever program wrote it; tensors are not read yet.
    ///
    /// `wanted` is what a recipe says of it: folders without settings are read by it.
    pub fn open(path: &Path, wanted: Option<Wanted<'_>>) -> Result<Opened, Error> {
        let refused = |reason| Error::unusable(path, reason);
        let Some((format, folder)) = format::detect(path) else {
            return Err(Error::NotACheckpoint { path: path.to_owned() });
        };
        let foreign = |reader| Content::Foreign(Box::new(reader));
        Ok(match format {
            Format::Native => {
                let checkpoint = Checkpoint::open(path)?;
                let layout = checkpoint.manifest().header.layout;
                Opened {
                    format,
                    layout: Some([layout.tensor, layout.pipeline]),
                    tokenizer: Ok(None),
                    may_be_padded: false,
                    legacy_order: false,
                    content: Content::Native(Box::new(checkpoint)),
                }
            }
            Format::HuggingFace => Opened {
                format,
                layout: None,
                tokenizer: Ok(hugging_face_tokenizer(&folder)),
                may_be_padded: false,
                legacy_order: false,
                content: foreign(hugging_face::open(&folder).map_err(refused)?),
            },
            Format::Gguf => {
                let (reader, metadata) = gguf::open(&folder).map_err(refused)?;
                let carried = |(kind, files)| Some(Carried { kind, files });
                Opened {
                    format,
                    layout: None,
                    tokenizer: gguf::tokenizer::files(&metadata).map(carried),
                    may_be_padded: false,
                    legacy_order: false,
                    content: foreign(reader),
                }
            }
            Format::Nemo | Format::Megatron | Format::RankShards => {
                let opened = nemo::open(&folder, wanted).map_err(refused)?;
                Opened {
                    format,
                    layout: Some(opened.layout),
                    tokenizer: Ok(nemo_tokenizer(&opened.tokenizer)),
                    may_be_padded: opened.may_be_padded,
                    legacy_order: opened.legacy_order,
                    content: foreign(opened.reader),
                }
            }
        })
    }

    /// The shape of its model.
    pub fn architecture(&self) -> &Architecture {
        match &self.content {
            Content::Native(checkpoint) => &checkpoint.manifest().header.architecture,
            Content::Foreign(reader) => reader.architecture(),
        }
    }

    /// Its tensors by our names.
    pub fn source(&self) -> &dyn Source {
        match &self.content {
            Content::Native(checkpoint) => &**checkpoint,
            Content::Foreign(reader) => &**reader,
        }
    }

    /// The checkpoint, if it is of our own format.
    pub fn native(&self) -> Option<&Checkpoint> {
        match &self.content {
            Content::Native(checkpoint) => Some(checkpoint),
            Content::Foreign(_) => None,
        }
    }

    /// The reader, if it is another program's.
    pub fn foreign(&self) -> Option<&Reader> {
        match &self.content {
            Content::Native(_) => None,
            Content::Foreign(reader) => Some(reader),
        }
    }

    /// The same with a vocabulary of `ids` ids, where another program's has more rows: those after
    /// them are padding.
    #[must_use]
    pub fn with_vocabulary(mut self, ids: usize) -> Opened {
        self.content = match self.content {
            Content::Foreign(reader) if (1..reader.architecture().vocab_size).contains(&ids) => {
                Content::Foreign(Box::new(reader.with_vocabulary(ids)))
            }
            content => content,
        };
        self
    }

    /// Refuses a checkpoint in which something is missing or left over.
    pub fn whole(self) -> Result<Opened, Error> {
        let loose = self.foreign().map(Reader::loose).filter(|loose| !loose.is_empty());
        match loose {
            None => Ok(self),
            Some(loose) => Err(Error::unusable(self.source().path(), told(loose))),
        }
    }
}

/// What does not fit, in words.
pub fn told(loose: &Loose) -> String {
    let list = |what: &str, names: &[String]| match names {
        [] => None,
        [one] => Some(format!("{what} `{one}`")),
        [first, rest @ ..] => Some(format!("{what} `{first}` and {} more", rest.len())),
    };
    let parts =
        [list("it lacks", &loose.missing), list("the model has no place for its", &loose.unused)];
    parts.into_iter().flatten().collect::<Vec<_>>().join("; ")
}

/// The tokenizer files of a Hugging Face folder.
fn hugging_face_tokenizer(folder: &Path) -> Option<Carried> {
    let read = |names: &[&str]| -> BTreeMap<String, Vec<u8>> {
        let file = |name: &&str| Some(((*name).to_owned(), fs::read(folder.join(name)).ok()?));
        names.iter().filter_map(file).collect()
    };
    let chat = "chat_template.jinja";
    for (kind, needed, others) in [
        (
            TokenizerKind::HuggingFace,
            ["tokenizer.json"].as_slice(),
            ["tokenizer_config.json", chat].as_slice(),
        ),
        (TokenizerKind::Gpt2Bpe, &["vocab.json", "merges.txt"], &[chat]),
        (TokenizerKind::SentencePiece, &["tokenizer.model"], &[chat]),
    ] {
        let mut files = read(needed);
        if files.len() == needed.len() {
            files.extend(read(others));
            return Some(Carried { kind, files });
        }
    }
    None
}

/// The tokenizer files of an archive, by what they are.
fn nemo_tokenizer(files: &BTreeMap<String, Vec<u8>>) -> Option<Carried> {
    let get = |name: &str| files.get(name).cloned();
    if let (Some(vocabulary), Some(merges)) =
        (get("tokenizer.vocab_file"), get("tokenizer.merge_file"))
    {
        let files = [("vocab.json", vocabulary), ("merges.txt", merges)];
        let files = files.map(|(name, bytes)| (name.to_owned(), bytes)).into();
        return Some(Carried { kind: TokenizerKind::Gpt2Bpe, files });
    }
    let model = get("tokenizer.model")?;
    let (kind, name) = if model.starts_with(b"{") {
        (TokenizerKind::HuggingFace, "tokenizer.json")
    } else {
        (TokenizerKind::SentencePiece, "tokenizer.model")
    };
    Some(Carried { kind, files: BTreeMap::from([(name.to_owned(), model)]) })
}
