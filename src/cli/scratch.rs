//! A folder of a command's own, which goes when the command ends.

use super::failure::Failure;
use std::path::{Path, PathBuf};

/// The folder.
#[derive(Debug)]
pub(super) struct Scratch(PathBuf);

impl Scratch {
    /// A folder for `purpose` in the cache at `cache`, apart from those of other processes.
    pub(super) fn new(cache: &Path, purpose: &str) -> Result<Scratch, Failure> {
        let folder = cache.join(purpose).join(std::process::id().to_string());
        std::fs::create_dir_all(&folder).map_err(|error| {
            Failure::Failed(format!("cannot make `{}`: {error}", folder.display()))
        })?;
        Ok(Scratch(folder))
    }

    /// Where it lies.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed is left; it lies in the cache, which may be removed at any time.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
