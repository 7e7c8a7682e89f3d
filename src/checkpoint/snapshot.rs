//! A training state copied out of the way, so that it can be written while training goes on.

use super::error::Error;
use super::manifest::Header;
use super::writer::{Draft, PieceSpec, PieceWriter, Written};
use std::path::Path;

/// What all ranks' files of a checkpoint will hold.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// What the checkpoint is.
    pub header: Header,
    /// The files, in the order of the ranks.
    pub files: Vec<FileSnapshot>,
}

/// What one file will hold.
#[derive(Clone, Debug)]
pub struct FileSnapshot {
    /// Its name.
    pub name: String,
    /// Its pieces with their values, f32 and row-major.
    pub pieces: Vec<(PieceSpec, Vec<f32>)>,
}

impl Snapshot {
    /// Writes the checkpoint as folder `target`, which must not exist; returns its bytes.
    pub fn write(&self, target: &Path) -> Result<u64, Error> {
        let draft = Draft::begin(target)?;
        let files = self.write_files(draft.folder())?;
        draft.commit(self.header.clone(), files)
    }

    /// Writes its files into `folder`, where a checkpoint is made.
    pub fn write_files(&self, folder: &Path) -> Result<Vec<Written>, Error> {
        self.files.iter().map(|file| file.write(folder)).collect()
    }
}

impl FileSnapshot {
    fn write(&self, folder: &Path) -> Result<Written, Error> {
        /// Numbers that are put into bytes at a time.
        const BAND: usize = 1 << 20;
        let specs = self.pieces.iter().map(|(spec, _)| spec.clone()).collect();
        let mut writer = PieceWriter::create(folder, &self.name, specs)?;
        let mut bytes = vec![0; BAND * size_of::<f32>()];
        for band in self.pieces.iter().flat_map(|(_, values)| values.chunks(BAND)) {
            let places = bytes.chunks_exact_mut(size_of::<f32>());
            places.zip(band).for_each(|(place, value)| place.copy_from_slice(&value.to_le_bytes()));
            writer.write(&bytes[..size_of_val(band)])?;
        }
        writer.finish()
    }
}
