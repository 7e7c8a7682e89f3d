//! Takes artifacts over from another store without copying them.

use super::store::{Error, Found, Store, disk};
use crate::base::atomic_file;
use crate::base::digest::{Digest, files_below};
use std::fs;

impl Store {
    /// Makes the artifact called `fingerprint` of `other` one of this store's too, by hard links
    /// where the file system has them; false when `other` does not have it whole.
    pub fn adopt(&self, other: &Store, kind: &str, fingerprint: Digest) -> Result<bool, Error> {
        let place = self.folder(kind, fingerprint);
        if place.exists() {
            return Ok(true);
        }
        let Found::Whole(_) = other.find(kind, fingerprint) else { return Ok(false) };
        let (from, partial) = (other.folder(kind, fingerprint), self.partial(fingerprint));
        for (name, path) in disk(files_below(&from), "list", &from)? {
            let to = partial.join(&name);
            let folder = to.parent().unwrap_or(&partial);
            disk(fs::create_dir_all(folder), "make", folder)?;
            if fs::hard_link(&path, &to).is_err() {
                // Another file system, or one without hard links: a copy does as well.
                disk(fs::copy(&path, &to), "copy", &path)?;
            }
        }
        disk(atomic_file::rename_folder(&partial, &place), "rename", &partial)?;
        Ok(true)
    }
}
