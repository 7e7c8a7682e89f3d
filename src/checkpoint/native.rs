//! Reads native checkpoints: any part of any tensor, from whichever files hold it.

pub use super::error::Error;
use super::format::{self, Format};
use super::manifest::{Manifest, PieceEntry, TensorEntry};
use super::source::{Source, TensorFacts};
use crate::base::digest::Hasher;
use crate::base::mapped_file::MappedFile;
use crate::layout::slice::{Overlap, Slice, overlaps};
use safetensors::SafeTensors;
use safetensors::tensor::Metadata;
use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Bytes of a file that are mapped at a time.
const WINDOW: u64 = 64 << 20;

/// An opened checkpoint.
#[derive(Debug)]
pub struct Checkpoint {
    folder: PathBuf,
    manifest: Manifest,
    facts: BTreeMap<String, TensorFacts>,
    files: BTreeMap<String, PieceFile>,
    /// Of each piece, by file and key, whether its bytes have been held against their hash.
    verified: BTreeMap<(String, String), Mutex<bool>>,
}

/// An opened file of pieces.
#[derive(Debug)]
struct PieceFile {
    file: File,
    metadata: Metadata,
    /// Where the first tensor begins.
    start: u64,
}

impl Checkpoint {
    /// Opens the native checkpoint at `path`, which may be a stage's output that holds one.
    ///
    /// The manifest is held against the files' sizes and heads; tensors are not read yet.
    pub fn open(path: &Path) -> Result<Checkpoint, Error> {
        let folder = match format::detect(path) {
            Some((Format::Native, folder)) => folder,
            Some((format, path)) => return Err(Error::Foreign { path, format }),
            None => return Err(Error::NotACheckpoint { path: path.to_owned() }),
        };
        let manifest = Manifest::read(&folder)?;
        manifest.check().map_err(|reason| Error::unusable(&folder, reason))?;
        let mut files = BTreeMap::new();
        for (name, size) in &manifest.files {
            files.insert(name.clone(), PieceFile::open(&folder, name, *size)?);
        }
        let fact = |(name, entry): (&String, &TensorEntry)| {
            (name.clone(), TensorFacts { shape: entry.shape.clone(), dtype: entry.dtype })
        };
        let facts = manifest.tensors.iter().map(fact).collect();
        let pieces = manifest.tensors.values().flat_map(|tensor| &tensor.pieces);
        let verified = pieces
            .map(|piece| ((piece.file.clone(), piece.key.clone()), Mutex::default()))
            .collect();
        let checkpoint = Checkpoint { folder, manifest, facts, files, verified };
        checkpoint.pieces().try_for_each(|piece| checkpoint.place(piece).map(drop))?;
        Ok(checkpoint)
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Where it lies.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Reads every piece and holds it against its hash.
    pub fn verify(&self) -> Result<(), Error> {
        self.pieces().try_for_each(|(name, _, piece)| self.verify_piece(name, piece))
    }

    fn pieces(&self) -> impl Iterator<Item = (&str, &TensorEntry, &PieceEntry)> {
        let tensors = self.manifest.tensors.iter();
        tensors.flat_map(|(name, tensor)| {
            tensor.pieces.iter().map(move |piece| (name.as_str(), tensor, piece))
        })
    }

    /// The file of a piece and where its bytes lie in it, held against the manifest.
    fn place(
        &self,
        (name, tensor, piece): (&str, &TensorEntry, &PieceEntry),
    ) -> Result<(&PieceFile, Range<u64>), Error> {
        let file = &piece.file;
        let missing = || self.unusable(format!("tensor `{name}` is not in {file}"));
        let opened = self.files.get(file).ok_or_else(missing)?;
        let info = opened.metadata.info(&piece.key).ok_or_else(missing)?;
        let shape = slice_of(tensor, piece).shape(&tensor.shape);
        if info.shape != shape || info.dtype != tensor.dtype {
            let (found, dtype) = (&info.shape, info.dtype);
            return Err(self.unusable(format!(
                "tensor `{name}` is {dtype:?} {found:?} in {file}, the manifest says {:?} {shape:?}",
                tensor.dtype
            )));
        }
        let (start, end) = info.data_offsets;
        Ok((opened, opened.start + start as u64..opened.start + end as u64))
    }

    fn verify_piece(&self, name: &str, piece: &PieceEntry) -> Result<(), Error> {
        let known = self.verified.get(&(piece.file.clone(), piece.key.clone()));
        // Others who want the piece wait here, so that it is hashed once.
        let mut known = known.map(|known| known.lock().unwrap_or_else(PoisonError::into_inner));
        if known.as_ref().is_some_and(|known| **known) {
            return Ok(());
        }
        let tensor = &self.manifest.tensors[name];
        let (file, place) = self.place((name, tensor, piece))?;
        let mut hasher = Hasher::default();
        let mut start = place.start;
        while start < place.end {
            let end = place.end.min(start + WINDOW);
            hasher.update(&self.window(file, &piece.file, start..end)?);
            start = end;
        }
        if hasher.finish() != piece.blake3 {
            return Err(self.unusable(format!(
                "tensor `{name}` in {} is damaged (its hash differs from the manifest's): \
                 restore the folder or make it again",
                piece.file
            )));
        }
        if let Some(known) = &mut known {
            **known = true;
        }
        Ok(())
    }

    /// Copies what `piece` holds of `wanted` into `bytes`.
    fn copy(
        &self,
        (name, tensor, piece): (&str, &TensorEntry, &PieceEntry),
        wanted: &Slice,
        bytes: &mut [u8],
    ) -> Result<(), Error> {
        let shared = overlaps(&slice_of(tensor, piece), wanted, &tensor.shape);
        if shared.is_empty() {
            return Ok(());
        }
        self.verify_piece(name, piece)?;
        let (file, place) = self.place((name, tensor, piece))?;
        let width = tensor.dtype.bitsize() / 8;
        for group in windows(&shared, width) {
            let (first, last) = (group[0], group[group.len() - 1]);
            let at = |element: usize| place.start + (element * width) as u64;
            let range = at(first.from)..at(last.from + last.len);
            let window = self.window(file, &piece.file, range)?;
            for Overlap { from, to, len } in group {
                let from = (from - first.from) * width;
                let target = &mut bytes[to * width..(to + len) * width];
                target.copy_from_slice(&window[from..from + len * width]);
            }
        }
        Ok(())
    }

    fn window(&self, file: &PieceFile, name: &str, range: Range<u64>) -> Result<MappedFile, Error> {
        let path = self.folder.join(name);
        MappedFile::window(&file.file, range).map_err(Error::io("read", &path))
    }

    fn unusable(&self, reason: String) -> Error {
        Error::unusable(&self.folder, reason)
    }
}

impl Source for Checkpoint {
    fn path(&self) -> &Path {
        &self.folder
    }

    fn tensors(&self) -> &BTreeMap<String, TensorFacts> {
        &self.facts
    }

    fn read_slice(&self, name: &str, slice: &Slice) -> Result<Vec<u8>, Error> {
        let tensor = self.manifest.tensors.get(name);
        let tensor = tensor.ok_or_else(|| self.unusable(format!("tensor `{name}` is missing")))?;
        let size = slice.element_count(&tensor.shape) * tensor.dtype.bitsize() / 8;
        let mut bytes = vec![0; size];
        for piece in &tensor.pieces {
            self.copy((name, tensor, piece), slice, &mut bytes)?;
        }
        Ok(bytes)
    }
}

fn slice_of<'a>(tensor: &TensorEntry, piece: &'a PieceEntry) -> std::borrow::Cow<'a, Slice> {
    match &piece.slice {
        Some(slice) => std::borrow::Cow::Borrowed(slice),
        None => std::borrow::Cow::Owned(Slice::whole(&tensor.shape)),
    }
}

/// Groups of neighbours that a window of the file can hold.
fn windows(shared: &[Overlap], width: usize) -> impl Iterator<Item = &[Overlap]> {
    let mut rest = shared;
    std::iter::from_fn(move || {
        let first = rest.first()?;
        let fits = |overlap: &Overlap| {
            ((overlap.from + overlap.len - first.from) * width) as u64 <= WINDOW
        };
        let count = rest.iter().take_while(|overlap| fits(overlap)).count().max(1);
        let (group, left) = rest.split_at(count);
        rest = left;
        Some(group)
    })
}

impl PieceFile {
    fn open(folder: &Path, name: &str, size: u64) -> Result<PieceFile, Error> {
        let path = folder.join(name);
        let file = match File::open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::unusable(folder, format!("{name} is missing")));
            }
            opened => opened.map_err(Error::io("read", &path))?,
        };
        let found = file.metadata().map_err(Error::io("read", &path))?.len();
        if found != size {
            let reason = format!("{name} is damaged ({found} bytes, the manifest says {size})");
            return Err(Error::unusable(folder, reason));
        }
        let map = MappedFile::open(&path).map_err(Error::io("read", &path))?;
        let (length, metadata) = SafeTensors::read_metadata(&map)
            .map_err(|error| Error::unusable(folder, format!("{name} is damaged ({error})")))?;
        Ok(PieceFile { file, metadata, start: length as u64 + 8 })
    }
}
