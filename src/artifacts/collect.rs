//! Removes artifacts that nothing refers to any more.

use super::guard::Claim;
use super::lock::Lock;
use super::store::{Error, PARTIAL, Store, disk};
use crate::base::digest::{Digest, files_below};
use crate::spec::job::RESUME_FOLDER;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// How [`Store::collect`] works.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collect {
    /// Only say what would go.
    pub dry: bool,
    /// Remove interrupted training too that the next run would go on with.
    pub partial: bool,
}

/// What [`Store::collect`] removed, or would remove.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Folders below the store, `KIND/FINGERPRINT` or `partial/FINGERPRINT`, in name order.
    pub removed: Vec<String>,
    /// Their bytes.
    pub bytes: u64,
    /// Artifacts that stay.
    pub kept: usize,
    /// Folders that another process works on; they stay too.
    pub busy: Vec<String>,
    /// Interrupted training that stays because a run can go on with it.
    pub resumable: Vec<String>,
}

impl Store {
    /// Removes every artifact that is not in `keep`, and interrupted work that nobody works on.
    ///
    /// Interrupted work on a fingerprint in `keep` stays, and so does training that has saved a
    /// checkpoint, unless `how` says otherwise.
    pub fn collect(&self, keep: &BTreeSet<Digest>, how: Collect) -> Result<Collected, Error> {
        let mut collected = Collected::default();
        for (kind, entry) in self.entries()? {
            // What a replacement left behind when it was cut short.
            let replaced = entry.strip_suffix(".old");
            // Folders of other names (`locks`, `last`) hold files only.
            let stem = replaced.unwrap_or(&entry).to_owned();
            let Ok(fingerprint) = Digest::try_from(stem) else { continue };
            if replaced.is_none() && keep.contains(&fingerprint) {
                collected.kept += 1;
                continue;
            }
            let name = format!("{kind}/{entry}");
            if kind == PARTIAL && !how.partial && self.can_go_on(fingerprint) {
                collected.resumable.push(name);
                continue;
            }
            self.remove(&name, fingerprint, how.dry, &mut collected)?;
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

    fn remove(
        &self,
        name: &str,
        fingerprint: Digest,
        dry: bool,
        collected: &mut Collected,
    ) -> Result<(), Error> {
        let folder = self.root().join(name);
        let Claim::Mine(_guard) = self.claim(fingerprint, "sft-run gc")? else {
            collected.busy.push(name.to_owned());
            return Ok(());
        };
        for (_, path) in disk(files_below(&folder), "list", &folder)? {
            collected.bytes += disk(fs::metadata(&path), "read", &path)?.len();
        }
        collected.removed.push(name.to_owned());
        if dry { Ok(()) } else { disk(fs::remove_dir_all(&folder), "remove", &folder) }
    }
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
