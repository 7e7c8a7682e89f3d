//! Removes artifacts that nothing refers to any more.

use super::guard::Claim;
use super::lock::Lock;
use super::store::{Error, PARTIAL, Store, disk};
use crate::base::digest::{Digest, files_below};
use crate::spec::job::RESUME_FOLDER;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// How [`Store::collect`] works.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collect {
    /// Only say what would go.
    pub dry: bool,
    /// Remove interrupted training too that the next run would go on with.
    pub partial: bool,
}

/// A folder of the store, and what [`Store::collect`] did with it, or would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name below the store, `KIND/FINGERPRINT` or `partial/FINGERPRINT`.
    pub name: String,
    /// What is in it.
    pub fingerprint: Digest,
    /// Bytes of its files.
    pub bytes: u64,
    /// When it was last written to: for an artifact, when it was finished.
    pub modified: SystemTime,
    /// What becomes of it.
    pub fate: Fate,
}

/// What [`Store::collect`] does with a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It goes: nothing refers to it.
    Removed,
    /// It stays: a lock file or a recipe's last run names it.
    Kept,
    /// It stays: another process works on it.
    Busy,
    /// It stays: interrupted training that a run can go on with.
    Resumable,
}

impl Store {
    /// Removes every artifact that is not in `keep`, and interrupted work that nobody works on; tells
    /// of every folder, in name order.
    ///
    /// Interrupted training that has saved a checkpoint stays, unless `how` says otherwise.
    pub fn collect(&self, keep: &BTreeSet<Digest>, how: Collect) -> Result<Vec<Entry>, Error> {
        let mut collected = Vec::new();
        for (kind, name) in self.entries()? {
            // What a replacement left behind when it was cut short.
            let replaced = name.strip_suffix(".old");
            // Folders of other names (`locks`, `last`) hold files only.
            let stem = replaced.unwrap_or(&name).to_owned();
            let Ok(fingerprint) = Digest::try_from(stem) else { continue };
            let folder = self.root().join(&kind).join(&name);
            let (bytes, modified) = measure(&folder)?;
            let fate = if replaced.is_none() && keep.contains(&fingerprint) {
                Fate::Kept
            } else if kind == PARTIAL && !how.partial && self.can_go_on(fingerprint) {
                Fate::Resumable
            } else {
                self.remove(&folder, fingerprint, how.dry)?
            };
            let name = format!("{kind}/{name}");
            collected.push(Entry { name, fingerprint, bytes, modified, fate });
        }
        if !how.dry {
            self.save()?;
        }
        Ok(collected)
    }

    /// Fingerprints that the last run of each recipe used.
    pub fn used_by_last_runs(&self) -> Result<BTreeSet<Digest>, Error> {
        let folder = self.root().join("last");
        let mut used = BTreeSet::new();
        if !folder.exists() {
            return Ok(used);
        }
        for (_, path) in disk(files_below(&folder), "list", &folder)? {
            if let Some(last) = Lock::read(&path)? {
                used.extend(last.stages.values().map(|stage| stage.fingerprint));
            }
        }
        Ok(used)
    }

    /// Where the last run of the recipe whose lock file is `lock` is kept.
    pub fn last_run(&self, lock: &Path) -> PathBuf {
        let stem = lock.file_stem().unwrap_or_default().to_string_lossy();
        let whole = Digest::of_bytes(lock.as_os_str().as_encoded_bytes()).short();
        self.root().join("last").join(format!("{stem}-{whole}.json"))
    }

    /// Whether interrupted work on `fingerprint` has saved something to go on from.
    fn can_go_on(&self, fingerprint: Digest) -> bool {
        let saved = self.partial(fingerprint).join("output").join(RESUME_FOLDER);
        saved.read_dir().is_ok_and(|mut entries| entries.next().is_some())
    }

    /// Every folder two levels down: the kind, or `partial`, and the name.
    fn entries(&self) -> Result<Vec<(String, String)>, Error> {
        let mut entries = Vec::new();
        for kind in folders(self.root())? {
            let below = folders(&self.root().join(&kind))?;
            entries.extend(below.into_iter().map(|entry| (kind.clone(), entry)));
        }
        Ok(entries)
    }

    fn remove(&self, folder: &Path, fingerprint: Digest, dry: bool) -> Result<Fate, Error> {
        let Claim::Mine(_guard) = self.claim(fingerprint, "sft-run gc")? else {
            return Ok(Fate::Busy);
        };
        if !dry {
            disk(fs::remove_dir_all(folder), "remove", folder)?;
        }
        Ok(Fate::Removed)
    }
}

/// Bytes of the files below `folder`, and when the youngest of them was written.
fn measure(folder: &Path) -> Result<(u64, SystemTime), Error> {
    let mut bytes = 0;
    let mut modified = SystemTime::UNIX_EPOCH;
    for (_, path) in disk(files_below(folder), "list", folder)? {
        let about = disk(fs::metadata(&path), "read", &path)?;
        bytes += about.len();
        modified = modified.max(about.modified().unwrap_or(SystemTime::UNIX_EPOCH));
    }
    Ok((bytes, modified))
}

/// Names of the folders in `folder`, in order; none when it does not exist.
fn folders(folder: &Path) -> Result<BTreeSet<String>, Error> {
    let mut names = BTreeSet::new();
    if !folder.exists() {
        return Ok(names);
    }
    for entry in disk(fs::read_dir(folder), "list", folder)? {
        let entry = disk(entry, "list", folder)?;
        if entry.path().is_dir() {
            names.insert(entry.file_name().to_string_lossy().into_owned());
        }
    }
    Ok(names)
}
