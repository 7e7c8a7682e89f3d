//! The way in for `inspect`: what a file or folder holds, as facts and a list.

use super::inspect_foreign;
use crate::checkpoint::format::{self, Format};
use crate::checkpoint::manifest::{self, Kind, Manifest, TensorEntry};
use crate::checkpoint::native::{self, Checkpoint};
use crate::data::indexed::{self, IndexedFile};
use crate::data::tokenizer::{self, SpecialIds, Tokenizer};
use serde::Serialize;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// What was found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Inspected {
    /// What it is.
    pub what: String,
    /// Where it lies.
    pub path: PathBuf,
    /// Its facts, a name and a text each.
    pub facts: Vec<(String, String)>,
    /// A list, if it has one: the names of the columns and the rows.
    pub list: Option<(Vec<String>, Vec<Vec<String>>)>,
}

/// Why something that was recognised cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] native::Error),
    /// A token file.
    #[error(transparent)]
    Tokens(#[from] indexed::Error),
    /// A tokenizer.
    #[error(transparent)]
    Tokenizer(#[from] tokenizer::Error),
}

/// What lies at `path`: a file, the prefix of token files, or a folder whose parts are shown one
/// after the other; none when nothing in it is known.
pub fn run(path: &Path) -> Result<Option<Vec<Inspected>>, Error> {
    let mut found = Vec::new();
    for part in parts(path) {
        found.extend(one(&part)?);
    }
    Ok((!found.is_empty()).then_some(found))
}

/// The path itself, or what a folder of ours holds: a stage's output, a run folder, shards.
fn parts(path: &Path) -> Vec<PathBuf> {
    if !path.is_dir()
        || is_foreign(path)
        || path.join("manifest.json").is_file()
        || path.join("kind.json").is_file()
    {
        return vec![path.to_owned()];
    }
    let mut parts = Vec::new();
    let mut names: Vec<PathBuf> =
        std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    names.sort();
    for name in names {
        let known = ["checkpoint", "tokenizer", "checkpoints", "output"];
        if name.is_dir() && known.iter().any(|known| name.ends_with(known)) {
            parts.extend(parts_of_subfolder(&name));
        } else if name.extension().is_some_and(|ending| ending == "idx") {
            parts.push(name);
        }
    }
    parts
}

/// `checkpoints/` and `output/` hold folders of ours; the others are such folders themselves.
fn parts_of_subfolder(folder: &Path) -> Vec<PathBuf> {
    if folder.ends_with("checkpoints") {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let mut stages: Vec<PathBuf> =
            entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
        stages.sort();
        return stages.iter().flat_map(|stage| parts(stage)).collect();
    }
    parts(folder)
}

/// Whether a checkpoint of another program lies there.
fn is_foreign(path: &Path) -> bool {
    format::detect(path).is_some_and(|(format, _)| format != Format::Native)
}

fn one(path: &Path) -> Result<Option<Inspected>, Error> {
    if is_foreign(path) {
        return Ok(inspect_foreign::checkpoint(path)?);
    }
    if path.join("manifest.json").is_file() {
        return Ok(Some(checkpoint(&Checkpoint::open(path)?)));
    }
    if path.join("kind.json").is_file() {
        return Ok(Some(tokenizer(path, &Tokenizer::open(path)?)));
    }
    let ending = path.extension().unwrap_or_default();
    if ending == "idx" || ending == "bin" || path.with_extension("idx").is_file() && !path.is_file()
    {
        return Ok(Some(tokens(&path.with_extension(""))?));
    }
    if ending == "json" && path.is_file() {
        let files = [("tokenizer.model".to_owned(), path.to_owned())].into();
        let loaded = Tokenizer::load(crate::spec::job::TokenizerKind::HuggingFace, &files)?;
        return Ok(Some(tokenizer(path, &loaded)));
    }
    Ok(None)
}

fn checkpoint(checkpoint: &Checkpoint) -> Inspected {
    let Manifest { header, tensors, files } = checkpoint.manifest();
    let elements = |shape: &[usize]| shape.iter().product::<usize>();
    let weights = || tensors.iter().filter(|(name, _)| Kind::of(name).0 == Kind::Weight);
    let parameters: usize = weights().map(|(_, tensor)| elements(&tensor.shape)).sum();
    let layout = &header.layout;
    let mut facts = vec![
        ("format".to_owned(), format!("{}, version {}", manifest::FORMAT, manifest::VERSION)),
        ("step".to_owned(), header.progress.step.to_string()),
        ("consumed samples".to_owned(), header.progress.consumed_samples.to_string()),
        ("parameters".to_owned(), parameters.to_string()),
        ("optimizer state".to_owned(), format!("{} tensors", tensors.len() - weights().count())),
        (
            "written by".to_owned(),
            format!(
                "TP {} × PP {} × DP {}, {} files",
                layout.tensor,
                layout.pipeline,
                layout.data,
                files.len()
            ),
        ),
    ];
    if let Ok(Value::Object(shape)) = serde_json::to_value(&header.architecture) {
        facts.extend(
            shape.into_iter().map(|(name, value)| (name, value.to_string().replace('"', ""))),
        );
    }
    let row = |(name, tensor): (&String, &TensorEntry)| {
        let shape: Vec<String> = tensor.shape.iter().map(ToString::to_string).collect();
        let hashes: Vec<String> = tensor.pieces.iter().map(|piece| piece.blake3.short()).collect();
        vec![
            name.clone(),
            shape.join(" × "),
            format!("{:?}", tensor.dtype),
            elements(&tensor.shape).to_string(),
            hashes.join(" "),
        ]
    };
    let header = ["tensor", "shape", "type", "numbers", "hash"].map(str::to_owned).to_vec();
    Inspected {
        what: "checkpoint".to_owned(),
        path: checkpoint.folder().to_owned(),
        facts,
        list: Some((header, weights().map(row).collect())),
    }
}

fn tokens(prefix: &Path) -> Result<Inspected, Error> {
    let file = IndexedFile::open(prefix)?;
    let lengths = || (0..file.sequences()).map(|sequence| file.sequence_length(sequence));
    let total: usize = lengths().sum();
    let facts = [
        ("documents", file.documents().to_string()),
        ("sequences", file.sequences().to_string()),
        ("tokens", total.to_string()),
        ("longest sequence", lengths().max().unwrap_or(0).to_string()),
        ("token type", format!("{:?}", file.token_type()).to_lowercase()),
        ("loss mask", if file.has_mask() { "yes" } else { "no" }.to_owned()),
    ];
    Ok(Inspected {
        what: "token file".to_owned(),
        path: prefix.to_owned(),
        facts: facts.map(|(name, value)| (name.to_owned(), value)).to_vec(),
        list: None,
    })
}

fn tokenizer(path: &Path, tokenizer: &Tokenizer) -> Inspected {
    let SpecialIds { bos, eos, pad, unk } = tokenizer.special();
    let special = [("bos", bos), ("eos", eos), ("pad", pad), ("unk", unk)];
    let special = special.iter().filter_map(|(name, id)| Some(format!("{name} {}", (*id)?)));
    let facts = [
        ("kind", format!("{:?}", tokenizer.kind())),
        ("ids", tokenizer.vocab_size().to_string()),
        ("special ids", special.collect::<Vec<_>>().join(", ")),
    ];
    Inspected {
        what: "tokenizer".to_owned(),
        path: path.to_owned(),
        facts: facts.map(|(name, value)| (name.to_owned(), value)).to_vec(),
        list: None,
    }
}
