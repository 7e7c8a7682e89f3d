//! Writes native checkpoints: files of pieces in a folder of a temporary name, then the manifest,
//! then the folder's real name.

use super::error::Error;
use super::manifest::{self, Header, Manifest, PieceEntry, TensorEntry};
use crate::base::atomic_file;
use crate::base::digest::{Digest, Hasher};
use crate::layout::slice::Slice;
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

/// A piece that a file will hold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PieceSpec {
    /// The tensor's name, with the prefix of its [`manifest::Kind`].
    pub name: String,
    /// The tensor's shape as a whole, without padding of the vocabulary.
    pub shape: Vec<usize>,
    /// Its number format.
    pub dtype: Dtype,
    /// Which part of it.
    pub slice: Slice,
}

impl PieceSpec {
    /// Bytes of the piece.
    pub fn size(&self) -> usize {
        self.slice.element_count(&self.shape) * self.dtype.bitsize() / 8
    }
}

/// What a finished file holds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Written {
    file: String,
    size: u64,
    /// Key in the file, piece, hash.
    pieces: Vec<(String, PieceSpec, Digest)>,
}

impl Written {
    /// The file's name.
    pub fn name(&self) -> &str {
        &self.file
    }

    /// Whether it lies in `folder`, in its size.
    pub fn is_in(&self, folder: &Path) -> bool {
        fs::metadata(folder.join(&self.file)).is_ok_and(|metadata| metadata.len() == self.size)
    }
}

/// A file of pieces in the making: their bytes come in the declared order, in portions of any size.
#[derive(Debug)]
pub struct PieceWriter {
    path: PathBuf,
    file: File,
    keys: Vec<String>,
    pieces: Vec<PieceSpec>,
    hashes: Vec<Digest>,
    hasher: Hasher,
    /// Bytes of the piece at hand that have come.
    done: usize,
    size: u64,
    flusher: Option<Flusher>,
}

/// Sends what was written to the disk while more is being written, so that the end need not wait
/// for all of it.
#[derive(Debug)]
struct Flusher {
    wakes: SyncSender<()>,
    thread: JoinHandle<io::Result<()>>,
}

/// Bytes between two wakes of the flusher.
const FLUSH_EVERY: u64 = 64 << 20;

impl Flusher {
    fn start(file: &File) -> io::Result<Flusher> {
        let file = file.try_clone()?;
        let (wakes, woken) = sync_channel::<()>(1);
        let thread = thread::spawn(move || woken.iter().try_for_each(|()| file.sync_data()));
        Ok(Flusher { wakes, thread })
    }

    fn finish(self) -> io::Result<()> {
        drop(self.wakes);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl PieceWriter {
    /// Begins file `name` in `folder` with these pieces.
    pub fn create(folder: &Path, name: &str, pieces: Vec<PieceSpec>) -> Result<PieceWriter, Error> {
        let path = folder.join(name);
        let keys = keys(&pieces);
        let header = header(&keys, &pieces)
            .map_err(|reason| Error::unusable(folder, format!("{name}: {reason}")))?;
        let mut file = File::create(&path).map_err(Error::io("make", &path))?;
        file.write_all(&header).map_err(Error::io("write", &path))?;
        let (hashes, hasher) = (Vec::new(), Hasher::default());
        let size = header.len() as u64;
        let (done, flusher) = (0, None);
        Ok(PieceWriter { path, file, keys, pieces, hashes, hasher, done, size, flusher })
    }

    /// Takes the next bytes (little-endian, row-major); they belong to one piece.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.close_full_pieces();
        let room = self.pieces.get(self.hashes.len()).map_or(0, PieceSpec::size) - self.done;
        if bytes.len() > room {
            return Err(Error::unusable(&self.path, "more bytes came than were declared"));
        }
        self.file.write_all(bytes).map_err(Error::io("write", &self.path))?;
        self.hasher.update(bytes);
        self.done += bytes.len();
        let before = self.size;
        self.size += bytes.len() as u64;
        if before / FLUSH_EVERY < self.size / FLUSH_EVERY {
            self.flush().map_err(Error::io("write", &self.path))?;
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        let flusher = match self.flusher.take() {
            Some(flusher) => flusher,
            None => Flusher::start(&self.file)?,
        };
        // A full channel means that it is at it; an error that it has seen comes out at the end.
        let _ = flusher.wakes.try_send(());
        self.flusher = Some(flusher);
        Ok(())
    }

    /// Flushes the file to the disk.
    pub fn finish(mut self) -> Result<Written, Error> {
        self.close_full_pieces();
        if self.hashes.len() < self.pieces.len() {
            return Err(Error::unusable(&self.path, "fewer bytes came than were declared"));
        }
        let flushed = self.flusher.take().map_or(Ok(()), Flusher::finish);
        let synced = flushed.and_then(|()| self.file.sync_all());
        synced.map_err(Error::io("write", &self.path))?;
        let file = self.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let pieces = self.keys.into_iter().zip(self.pieces).zip(self.hashes);
        let pieces = pieces.map(|((key, piece), hash)| (key, piece, hash)).collect();
        Ok(Written { file, size: self.size, pieces })
    }

    fn close_full_pieces(&mut self) {
        while let Some(piece) = self.pieces.get(self.hashes.len())
            && self.done == piece.size()
        {
            self.hashes.push(std::mem::take(&mut self.hasher).finish());
            self.done = 0;
        }
    }
}

/// Names in the file: the tensor's, with a number when a file holds several pieces of it.
fn keys(pieces: &[PieceSpec]) -> Vec<String> {
    let mut taken = BTreeSet::new();
    let mut key = |piece: &PieceSpec| {
        let numbered = (1..).map(|number| format!("{}#{number}", piece.name));
        let mut names = std::iter::once(piece.name.clone()).chain(numbered);
        names.find(|name| taken.insert(name.clone())).unwrap_or_default()
    };
    pieces.iter().map(&mut key).collect()
}

/// The head of a safetensors file: its length, then JSON padded with spaces to 8 bytes.
fn header(keys: &[String], pieces: &[PieceSpec]) -> Result<Vec<u8>, String> {
    let mut end = 0;
    let info = |(key, piece): (&String, &PieceSpec)| {
        let start = end;
        end += piece.size();
        let shape = piece.slice.shape(&piece.shape);
        (key.clone(), TensorInfo { dtype: piece.dtype, shape, data_offsets: (start, end) })
    };
    let infos = keys.iter().zip(pieces).map(info).collect();
    let metadata = Metadata::new(None, infos).map_err(|error| error.to_string())?;
    let mut text = serde_json::to_vec(&metadata).map_err(|error| error.to_string())?;
    text.resize(text.len().next_multiple_of(8), b' ');
    Ok([&(text.len() as u64).to_le_bytes()[..], &text].concat())
}

/// A checkpoint in the making: a folder of a temporary name beside the real one.
#[derive(Debug)]
pub struct Draft {
    partial: PathBuf,
    target: PathBuf,
}

impl Draft {
    /// Where the files of checkpoint `target` are put while it is made.
    fn folder_for(target: &Path) -> PathBuf {
        let mut name = target.file_name().unwrap_or_default().to_os_string();
        name.push(atomic_file::PARTIAL);
        target.with_file_name(name)
    }

    /// Begins the checkpoint `target`; what an interrupted attempt left of it is removed.
    pub fn begin(target: &Path) -> Result<Draft, Error> {
        let partial = Draft::folder_for(target);
        if partial.exists() {
            fs::remove_dir_all(&partial).map_err(Error::io("remove", &partial))?;
        }
        fs::create_dir_all(&partial).map_err(Error::io("make", &partial))?;
        Ok(Draft { partial, target: target.to_owned() })
    }

    /// The folder for the files.
    pub fn folder(&self) -> &Path {
        &self.partial
    }

    /// Writes the manifest and gives the folder its name; returns the checkpoint's bytes.
    ///
    /// The pieces must be whole tensors together, each element once.
    pub fn commit(self, header: Header, files: Vec<Written>) -> Result<u64, Error> {
        let manifest = manifest(header, files);
        manifest.check().map_err(|reason| Error::unusable(&self.target, reason))?;
        let path = self.partial.join(manifest::FILE);
        let text = manifest.text().map_err(|error| Error::io("write", &path)(error.into()))?;
        atomic_file::write(&path, text.as_bytes()).map_err(Error::io("write", &path))?;
        atomic_file::rename_folder(&self.partial, &self.target)
            .map_err(Error::io("name", &self.target))?;
        Ok(manifest.files.values().sum::<u64>() + text.len() as u64)
    }
}

fn manifest(header: Header, files: Vec<Written>) -> Manifest {
    let mut tensors: BTreeMap<String, TensorEntry> = BTreeMap::new();
    let sizes = files.iter().map(|file| (file.file.clone(), file.size)).collect();
    for Written { file, pieces, .. } in files {
        for (key, piece, blake3) in pieces {
            let slice = (piece.slice != Slice::whole(&piece.shape)).then_some(piece.slice);
            let entry = PieceEntry { file: file.clone(), key, slice, blake3 };
            let fresh = || TensorEntry { shape: piece.shape, dtype: piece.dtype, pieces: vec![] };
            tensors.entry(piece.name).or_insert_with(fresh).pieces.push(entry);
        }
    }
    Manifest { header, tensors, files: sizes }
}
