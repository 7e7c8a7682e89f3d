//! The native form of a checkpoint: safetensors files and a manifest, as one folder that appears
//! whole or not at all.
//!
//! Tensors are whole, never a rank's piece, so any layout can read what another wrote.

use super::format::{self, Format};
use super::manifest::{FORMAT, Manifest, Progress, TensorEntry, VERSION};
use crate::base::digest::Digest;
use crate::base::{atomic_file, mapped_file::MappedFile};
use crate::spec::architecture::Architecture;
use safetensors::{Dtype, SafeTensors, View};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

const MODEL_FILE: &str = "model.safetensors";
const OPTIMIZER_FILE: &str = "optimizer.safetensors";
const MANIFEST_FILE: &str = "manifest.json";

/// Why a checkpoint cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Another program's checkpoint.
    #[error(
        "{path} is {format}, which this version cannot read: \
         give the folder of a checkpoint that sft-run wrote, or null for fresh weights"
    )]
    Foreign {
        /// Where.
        path: PathBuf,
        /// What it is.
        format: Format,
    },
    /// Nothing that looks like a checkpoint.
    #[error("{path} is not a checkpoint: no manifest.json in it")]
    NotACheckpoint {
        /// Where.
        path: PathBuf,
    },
    /// Our checkpoint, damaged or of another version.
    #[error("checkpoint {path} cannot be used: {reason}")]
    Unusable {
        /// Where.
        path: PathBuf,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// The tensors cannot be handled.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

/// A tensor to be saved: f32, row-major.
#[derive(Clone, Debug)]
pub struct NamedTensor<'a> {
    /// Its name.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its values.
    pub values: &'a [f32],
}

/// Everything that is saved.
#[derive(Clone, Debug)]
pub struct Content<'a> {
    /// The model's shape.
    pub architecture: &'a Architecture,
    /// Where training stands.
    pub progress: Progress,
    /// The parameters.
    pub model: Vec<NamedTensor<'a>>,
    /// The optimizer's state; empty for weights alone.
    pub optimizer: Vec<NamedTensor<'a>>,
}

/// Writes a checkpoint as folder `target`, which must not exist.
pub fn save(target: &Path, content: &Content<'_>) -> Result<(), Error> {
    let partial = partial_name(target);
    if partial.exists() {
        fs::remove_dir_all(&partial).map_err(io_error("remove", &partial))?;
    }
    fs::create_dir_all(&partial).map_err(io_error("make", &partial))?;
    let manifest = Manifest {
        format: FORMAT.to_owned(),
        version: VERSION,
        architecture: content.architecture.clone(),
        progress: content.progress,
        model: write_tensors(&partial.join(MODEL_FILE), &content.model)?,
        optimizer: write_tensors(&partial.join(OPTIMIZER_FILE), &content.optimizer)?,
    };
    let path = partial.join(MANIFEST_FILE);
    let text = serde_json::to_string_pretty(&manifest)
        .map_err(|error| io_error("write", &path)(error.into()))?;
    atomic_file::write(&path, text.as_bytes()).map_err(io_error("write", &path))?;
    atomic_file::rename_folder(&partial, target).map_err(io_error("name", target))
}

/// An opened checkpoint.
#[derive(Debug)]
pub struct Checkpoint {
    folder: PathBuf,
    manifest: Manifest,
}

/// The two sets of tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Parameters.
    Model,
    /// Optimizer state.
    Optimizer,
}

impl Checkpoint {
    /// Opens the native checkpoint at `path`, which may be a stage's output that holds one.
    ///
    /// Tensors are not read yet.
    pub fn open(path: &Path) -> Result<Checkpoint, Error> {
        let folder = match format::detect(path) {
            Some((Format::Native, folder)) => folder,
            Some((format, path)) => return Err(Error::Foreign { path, format }),
            None => return Err(Error::NotACheckpoint { path: path.to_owned() }),
        };
        let manifest = read_manifest(&folder)?;
        Ok(Checkpoint { folder, manifest })
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Where it lies.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Reads tensors `expected` (name and shape) in this order, each held against its hash.
    ///
    /// A tensor that is missing, of another shape, damaged, or not expected is an error.
    pub fn read(
        &self,
        part: Part,
        expected: &[(String, Vec<usize>)],
        mut take: impl FnMut(usize, &[u8]),
    ) -> Result<(), Error> {
        let (file, entries) = match part {
            Part::Model => (MODEL_FILE, &self.manifest.model),
            Part::Optimizer => (OPTIMIZER_FILE, &self.manifest.optimizer),
        };
        if let Some(extra) =
            entries.keys().find(|name| !expected.iter().any(|(known, _)| known == *name))
        {
            return Err(self.unusable(format!("the model has no tensor `{extra}`")));
        }
        let path = self.folder.join(file);
        let bytes = MappedFile::open(&path).map_err(io_error("read", &path))?;
        let tensors = SafeTensors::deserialize(&bytes)
            .map_err(|error| self.unusable(format!("{file} is damaged ({error})")))?;
        for (index, (name, shape)) in expected.iter().enumerate() {
            let entry = entries
                .get(name)
                .ok_or_else(|| self.unusable(format!("tensor `{name}` is missing")))?;
            take(index, self.checked_bytes(&tensors, name, (shape, entry))?);
        }
        Ok(())
    }

    fn checked_bytes<'data>(
        &self,
        tensors: &SafeTensors<'data>,
        name: &str,
        (shape, entry): (&[usize], &TensorEntry),
    ) -> Result<&'data [u8], Error> {
        let tensor = tensors
            .tensor(name)
            .map_err(|_| self.unusable(format!("tensor `{name}` is not in the file")))?;
        if entry.shape != shape || tensor.shape() != shape {
            let found = tensor.shape();
            let reason = format!("tensor `{name}` has shape {found:?}, the model needs {shape:?}");
            return Err(self.unusable(reason));
        }
        if tensor.dtype() != Dtype::F32 {
            let reason = format!("tensor `{name}` is {:?}, not F32", tensor.dtype());
            return Err(self.unusable(reason));
        }
        if Digest::of_bytes(tensor.data()) != entry.blake3 {
            let reason = format!(
                "tensor `{name}` is damaged (its hash differs from the manifest's): \
                 restore the folder or make it again"
            );
            return Err(self.unusable(reason));
        }
        Ok(tensor.data())
    }

    fn unusable(&self, reason: String) -> Error {
        Error::Unusable { path: self.folder.clone(), reason }
    }
}

fn read_manifest(folder: &Path) -> Result<Manifest, Error> {
    let path = folder.join(MANIFEST_FILE);
    let text = fs::read_to_string(&path).map_err(io_error("read", &path))?;
    let unusable = |reason: String| Error::Unusable { path: folder.to_owned(), reason };
    let value: serde_json::Value = serde_json::from_str(&text)
        .map_err(|error| unusable(format!("manifest.json is damaged ({error})")))?;
    if value["format"] != FORMAT {
        return Err(unusable(format!("manifest.json does not say `\"format\": \"{FORMAT}\"`")));
    }
    if value["version"] != VERSION {
        let found = &value["version"];
        let reason = format!("its version is {found}, this program reads version {VERSION}");
        return Err(unusable(reason));
    }
    serde_json::from_value(value)
        .map_err(|error| unusable(format!("manifest.json is damaged ({error})")))
}

fn write_tensors(
    path: &Path,
    tensors: &[NamedTensor<'_>],
) -> Result<BTreeMap<String, TensorEntry>, Error> {
    if tensors.is_empty() {
        return Ok(BTreeMap::new());
    }
    let entry = |tensor: &NamedTensor<'_>| {
        let bytes = little_endian(tensor.values);
        let entry = TensorEntry { shape: tensor.shape.clone(), blake3: Digest::of_bytes(&bytes) };
        (tensor.name.clone(), entry)
    };
    let entries = tensors.iter().map(entry).collect();
    let views = tensors.iter().map(|tensor| (tensor.name.clone(), tensor));
    safetensors::serialize_to_file(views, None, path)
        .map_err(|error| io_error("write", path)(io::Error::other(error)))?;
    let file = fs::File::open(path).map_err(io_error("open", path))?;
    file.sync_all().map_err(io_error("write", path))?;
    Ok(entries)
}

impl View for &NamedTensor<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Owned(little_endian(self.values))
    }

    fn data_len(&self) -> usize {
        self.values.len() * 4
    }
}

fn little_endian(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn partial_name(target: &Path) -> PathBuf {
    let mut name = target.file_name().unwrap_or_default().to_os_string();
    name.push(".partial");
    target.with_file_name(name)
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { action, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::parameters::llama_7b;

    fn saved(folder: &Path) -> PathBuf {
        let values: Vec<f32> = (0..6).map(|at| at as f32 / 4.0).collect();
        let tensor = |name: &str, shape: &[usize]| NamedTensor {
            name: name.to_owned(),
            shape: shape.to_vec(),
            values: &values,
        };
        let content = Content {
            architecture: &llama_7b(),
            progress: Progress { step: 3, consumed_samples: 24 },
            model: vec![tensor("b", &[2, 3]), tensor("a", &[6])],
            optimizer: vec![],
        };
        let target = folder.join("checkpoint");
        save(&target, &content).unwrap();
        target
    }

    fn read(path: &Path, expected: &[(&str, &[usize])]) -> Result<Vec<Vec<u8>>, Error> {
        let expected: Vec<_> =
            expected.iter().map(|(name, shape)| ((*name).to_owned(), shape.to_vec())).collect();
        let mut found = Vec::new();
        let checkpoint = Checkpoint::open(path)?;
        checkpoint.read(Part::Model, &expected, |_, bytes| found.push(bytes.to_vec()))?;
        Ok(found)
    }

    /// Reading `expected` fails with this message (the folder's path is left out of it).
    fn refused(path: &Path, expected: &[(&str, &[usize])], message: &str) {
        let error = read(path, expected).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }

    #[test]
    fn what_was_saved_is_read() {
        let folder = tempfile::tempdir().unwrap();
        saved(folder.path());
        // A stage's output folder stands for the checkpoint in it.
        let checkpoint = Checkpoint::open(folder.path()).unwrap();
        assert_eq!(checkpoint.manifest().progress.consumed_samples, 24);
        assert_eq!(checkpoint.manifest().architecture, llama_7b());
        let found = read(folder.path(), &[("a", &[6]), ("b", &[2, 3])]).unwrap();
        assert_eq!(found[0][4..8], 0.25f32.to_le_bytes());
        assert_eq!(found[0], found[1]);
        assert!(!folder.path().join("checkpoint/optimizer.safetensors").exists());
    }

    #[test]
    fn the_same_content_gives_the_same_bytes() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let digest = |folder: &Path| Digest::of_folder(&saved(folder)).unwrap();
        assert_eq!(digest(one.path()), digest(two.path()));
    }

    #[test]
    fn other_tensors_than_the_model_has_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = saved(folder.path());
        refused(&path, &[("a", &[6])], "the model has no tensor `b`");
        refused(&path, &[("a", &[6]), ("b", &[3, 2])], "has shape [2, 3], the model needs [3, 2]");
        let three: [(&str, &[usize]); 3] = [("a", &[6]), ("b", &[2, 3]), ("c", &[1])];
        refused(&path, &three, "tensor `c` is missing");
    }

    #[test]
    fn damage_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let path = saved(folder.path());
        let expected: [(&str, &[usize]); 2] = [("a", &[6]), ("b", &[2, 3])];
        let file = path.join(MODEL_FILE);
        let mut bytes = fs::read(&file).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        atomic_file::write(&file, &bytes).unwrap();
        refused(&path, &expected, "is damaged (its hash differs");
        bytes.truncate(bytes.len() / 2);
        atomic_file::write(&file, &bytes).unwrap();
        refused(&path, &expected, "model.safetensors is damaged");
        atomic_file::write(&path.join(MANIFEST_FILE), b"{\"format\": 1}").unwrap();
        refused(&path, &expected, "does not say");
    }

    #[test]
    fn other_versions_and_other_programs_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = saved(folder.path());
        let manifest = fs::read_to_string(path.join(MANIFEST_FILE)).unwrap();
        let newer = manifest.replace("\"version\": 1", "\"version\": 9");
        atomic_file::write(&path.join(MANIFEST_FILE), newer.as_bytes()).unwrap();
        refused(&path, &[], "its version is 9, this program reads version 1");

        let foreign = |name: &str, message: &str| {
            let folder = tempfile::tempdir().unwrap();
            atomic_file::write(&folder.path().join(name), b"x").unwrap();
            refused(folder.path(), &[], message);
        };
        foreign("config.json", "is a Hugging Face checkpoint, which this version cannot read");
        foreign("model_config.yaml", "is a NeMo checkpoint");
        foreign("latest_checkpointed_iteration.txt", "is a Megatron-LM checkpoint");
        foreign("mp_rank_00/model_weights.ckpt", "is a checkpoint cut into ranks");
        foreign("notes.txt", "is not a checkpoint: no manifest.json in it");
    }
}
