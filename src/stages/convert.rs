//! The way in for `convert`: any program's checkpoint as another's.

use super::load::progress;
use crate::base::atomic_file;
use crate::checkpoint::completed::Completed;
use crate::checkpoint::foreign::hugging_face::{self, written::Ends};
use crate::checkpoint::foreign::nemo;
use crate::checkpoint::foreign::written::kept;
use crate::checkpoint::format::Format;
use crate::checkpoint::manifest::{Header, Progress};
use crate::checkpoint::native;
use crate::checkpoint::opened::{Carried, Opened};
use crate::checkpoint::reshard::{self, reshard};
use crate::checkpoint::source::Source;
use crate::data::tokenizer::{self, Tokenizer};
use crate::spec::architecture::padded_vocab_size;
use crate::spec::event::Sink;
use crate::spec::job::TokenizerKind;
use crate::spec::optimization::Degrees;
use safetensors::Dtype;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A Hugging Face folder.
    HuggingFace,
    /// A `.nemo` archive.
    Nemo,
    /// The program's own checkpoint.
    Native,
}

/// How it is written.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// For which program.
    pub target: Target,
    /// Tensor-parallel ranks.
    pub tensor: usize,
    /// Pipeline stages.
    pub pipeline: usize,
    /// Whether numbers become bf16 or fp32; none keeps bf16 as it is and makes the rest fp32.
    pub bf16: Option<bool>,
    /// Rows of a NeMo vocabulary are a multiple of this times the tensor-parallel ranks.
    pub divisible_by: usize,
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Converted {
    /// What it was made of.
    pub from: String,
    /// Number of parameters.
    pub parameters: usize,
    /// Why no tokenizer went along, if none did.
    pub without_tokenizer: Option<String>,
}

/// Why a checkpoint cannot be converted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Reading or writing it.
    #[error(transparent)]
    Checkpoint(#[from] native::Error),
    /// Its tokenizer.
    #[error(transparent)]
    Tokenizer(#[from] tokenizer::Error),
    /// Something lies there already.
    #[error("`{}` exists already: give a new name, or remove it", .0.display())]
    Exists(PathBuf),
    /// It cannot be cut or written as asked.
    #[error("{0}")]
    Impossible(String),
    /// The disk.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Writes the checkpoint at `source` as `target`, which must not exist and appears whole or not at
/// all. Optimizer state stays behind.
pub fn run(
    source: &Path,
    target: &Path,
    settings: &Settings,
    sink: &dyn Sink,
) -> Result<Converted, Error> {
    if target.exists() {
        return Err(Error::Exists(target.to_owned()));
    }
    let (opened, carried, without_tokenizer) = with_tokenizer(source)?;
    let model = opened.architecture();
    let weights = Completed::new(opened.source(), model, 0);
    let layout =
        Degrees { tensor: settings.tensor, pipeline: settings.pipeline, ..Degrees::SINGLE };
    let single = (settings.tensor, settings.pipeline) == (1, 1);
    if settings.target == Target::HuggingFace && !single {
        let reason = "a Hugging Face folder has no layout: leave out --tp and --pp";
        return Err(Error::Impossible(reason.to_owned()));
    }
    if settings.target == Target::Native && settings.bf16.is_some() {
        let reason = "a native checkpoint keeps its numbers' format: leave out --dtype";
        return Err(Error::Impossible(reason.to_owned()));
    }
    if let Some(reason) = reshard::problem(model, &layout) {
        return Err(Error::Impossible(reason));
    }
    let partial = partial_name(target);
    remove(&partial)?;
    let dtype = match settings.bf16 {
        Some(true) => Dtype::BF16,
        Some(false) => Dtype::F32,
        None => kept(&weights),
    };
    let mut tell = |done, total| sink.emit(progress("converting", done, total));
    match settings.target {
        Target::HuggingFace => {
            fs::create_dir_all(&partial).map_err(wrong(&partial))?;
            let ends = carried.as_ref().map(|carried| save(carried, &partial)).transpose()?;
            remove_file(&partial.join("kind.json"))?;
            let (ends, model) = (ends.unwrap_or_default(), (&weights as &dyn Source, model));
            hugging_face::write(&partial, model, dtype, ends, &mut tell)?;
            atomic_file::rename_folder(&partial, target).map_err(wrong(target))?;
        }
        Target::Nemo => {
            let padded =
                padded_vocab_size(model.vocab_size, settings.divisible_by, settings.tensor);
            let request = nemo::Request {
                layout: [settings.tensor, settings.pipeline],
                padded_vocab_size: padded,
                divisible_by: settings.divisible_by,
                dtype,
                tokenizer: carried.as_ref(),
                tokenizer_name: source.to_str().filter(|_| opened.format == Format::HuggingFace),
            };
            nemo::write(&partial, (&weights, model), &request, &mut tell)?;
            fs::rename(&partial, target).map_err(wrong(target))?;
        }
        Target::Native => {
            let (architecture, progress) = (model.clone(), Progress::default());
            let header = Header { architecture, progress, layout, training: None };
            reshard(&weights, &partial, header, &mut tell)?;
            if let Some(carried) = &carried {
                save(carried, &partial.join("tokenizer"))?;
            }
            atomic_file::rename_folder(&partial, target).map_err(wrong(target))?;
        }
    }
    let shapes = weights.tensors().values().map(|facts| facts.shape.iter().product::<usize>());
    Ok(Converted { from: opened.format.to_string(), parameters: shapes.sum(), without_tokenizer })
}

/// The checkpoint at `source` with its tokenizer, or the reason why none goes along; the tokenizer
/// says where padding begins when the checkpoint does not.
fn with_tokenizer(source: &Path) -> Result<(Opened, Option<Carried>, Option<String>), Error> {
    let opened = Opened::open(source, None)?.whole()?;
    let none = |reason| (None, Some(reason));
    let (carried, without_tokenizer) = match carried(&opened, source) {
        Ok(Some(carried)) => (Some(carried), None),
        Ok(None) => none("none lies in or beside it".to_owned()),
        Err(reason) => none(reason),
    };
    let opened = match &carried {
        Some(carried) if opened.may_be_padded => {
            opened.with_vocabulary(tokenizer(carried)?.vocab_size())
        }
        _ => opened,
    };
    Ok((opened, carried, without_tokenizer))
}

/// The tokenizer in a checkpoint, or in the folder `tokenizer` in or beside it; the reason when there
/// is one that is not understood.
pub(super) fn carried(opened: &Opened, path: &Path) -> Result<Option<Carried>, String> {
    if let Some(carried) = opened.tokenizer.clone()? {
        return Ok(Some(carried));
    }
    let places = [Some(path), path.parent()];
    let folders = places.into_iter().flatten().map(|place| place.join("tokenizer"));
    let Some(folder) = folders.into_iter().find(|folder| folder.join("kind.json").is_file()) else {
        return Ok(None);
    };
    let kind = Tokenizer::open(&folder).map_err(|error| error.to_string())?.kind();
    let entries = fs::read_dir(&folder).map_err(|error| error.to_string())?;
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let files = names.filter_map(|name| Some((name.clone(), fs::read(folder.join(&name)).ok()?)));
    Ok(Some(Carried { kind, files: files.collect() }))
}

/// Opens a tokenizer whose files lie in a folder under their usual names.
fn open(kind: TokenizerKind, folder: &Path) -> Result<Tokenizer, tokenizer::Error> {
    if Tokenizer::is_saved(folder) {
        Tokenizer::open(folder)
    } else {
        Tokenizer::of_folder(kind, folder)
    }
}

/// Opens a tokenizer that a checkpoint carries.
pub(super) fn tokenizer(carried: &Carried) -> Result<Tokenizer, Error> {
    let folder = tempfile::tempdir().map_err(wrong(Path::new("a temporary folder")))?;
    put(carried, folder.path())?;
    let tokenizer = open(carried.kind, folder.path())?;
    // The folder goes away, and with it the file that the template stands in.
    let template = tokenizer.chat_template()?;
    Ok(tokenizer.with_chat_template(template))
}

/// Writes a tokenizer's files and their descriptor into `folder`; gives its special ids.
fn save(carried: &Carried, folder: &Path) -> Result<Ends, Error> {
    put(carried, folder)?;
    let tokenizer = open(carried.kind, folder)?;
    tokenizer.save(folder)?;
    let class = match carried.kind {
        TokenizerKind::HuggingFace => None,
        TokenizerKind::Gpt2Bpe => Some("GPT2Tokenizer"),
        TokenizerKind::SentencePiece => Some("LlamaTokenizer"),
    };
    let path = folder.join("tokenizer_config.json");
    if let Some(class) = class.filter(|_| !path.exists()) {
        let text = format!("{{\"tokenizer_class\": \"{class}\"}}\n");
        atomic_file::write(&path, text.as_bytes()).map_err(wrong(&path))?;
    }
    Ok(Ends { bos: tokenizer.bos(), eos: tokenizer.eos(), pad: tokenizer.special().pad })
}

fn put(carried: &Carried, folder: &Path) -> Result<(), Error> {
    fs::create_dir_all(folder).map_err(wrong(folder))?;
    for (name, bytes) in &carried.files {
        let path = folder.join(name);
        atomic_file::write(&path, bytes).map_err(wrong(&path))?;
    }
    Ok(())
}

fn partial_name(target: &Path) -> PathBuf {
    let mut name = target.file_name().unwrap_or_default().to_os_string();
    name.push(".converting");
    target.with_file_name(name)
}

/// Removes what an interrupted conversion left.
fn remove(path: &Path) -> Result<(), Error> {
    if path.is_dir() {
        return fs::remove_dir_all(path).map_err(wrong(path));
    }
    remove_file(path)
}

fn remove_file(path: &Path) -> Result<(), Error> {
    if path.exists() { fs::remove_file(path).map_err(wrong(path)) } else { Ok(()) }
}

fn wrong(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Write { path, source }
}
