//! Read-only memory maps.

use memmap2::{Mmap, MmapOptions};
use std::fs::File;
use std::io;
use std::ops::{Deref, Range};
use std::path::Path;

/// A file's bytes, mapped for reading.
#[derive(Debug)]
pub struct MappedFile(Mmap);

impl MappedFile {
    /// Maps the file at `path`.
    pub fn open(path: &Path) -> io::Result<MappedFile> {
        MappedFile::whole(&File::open(path)?)
    }

    /// Maps all of an open file.
    pub fn whole(file: &File) -> io::Result<MappedFile> {
        MappedFile::of(file, &MmapOptions::new())
    }

    /// Maps the bytes `range` of `file`, so that no more of it can come to lie in memory.
    pub fn window(file: &File, range: Range<u64>) -> io::Result<MappedFile> {
        if range.end > file.metadata()?.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let length = usize::try_from(range.end - range.start).map_err(io::Error::other)?;
        MappedFile::of(file, MmapOptions::new().offset(range.start).len(length))
    }

    fn of(file: &File, options: &MmapOptions) -> io::Result<MappedFile> {
        #[expect(unsafe_code, reason = "mapping a file has no safe form")]
        // SAFETY: the files mapped here are inputs and finished artifacts, which the program never
        // writes in place (see atomic_file); one that another program truncates ends this process
        // with SIGBUS, which is the price of not copying it.
        let map = unsafe { options.map(file)? };
        Ok(MappedFile(map))
    }
}

impl Deref for MappedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}
