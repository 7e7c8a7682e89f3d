//! Read-only memory maps.

use memmap2::Mmap;
use std::fs::File;
use std::io;
use std::ops::Deref;
use std::path::Path;

/// A file's bytes, mapped for reading.
#[derive(Debug)]
pub struct MappedFile(Mmap);

impl MappedFile {
    /// Maps the file at `path`.
    pub fn open(path: &Path) -> io::Result<MappedFile> {
        let file = File::open(path)?;
        #[expect(unsafe_code, reason = "mapping a file has no safe form")]
        // SAFETY: the files mapped here are inputs and finished artifacts, which the program never
        // writes in place (see atomic_file); one that another program truncates ends this process
        // with SIGBUS, which is the price of not copying it.
        let map = unsafe { Mmap::map(&file)? };
        Ok(MappedFile(map))
    }
}

impl Deref for MappedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}
