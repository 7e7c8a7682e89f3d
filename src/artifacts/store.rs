//! The content-addressed store: a folder with a fingerprint for its name is complete.
//!
//! ```text
//! KIND/FINGERPRINT/artifact.json    the record
//! KIND/FINGERPRINT/output/          the stage's output
//! partial/FINGERPRINT/output/       work that is going on, or was interrupted
//! locks/FINGERPRINT                 locked by the process that works
//! last/NAME.json                    what the last run of a recipe made, in the lock file's form
//! stat.json                         hashes of files that have not changed
//! ```
//! Work becomes an artifact by one rename of its whole folder, after everything in it has reached
//! the disk.

use super::guard::{self, Claim, Guard};
use super::record::{self, FileRecord, Record};
use super::stat_cache::StatCache;
use crate::base::atomic_file;
use crate::base::digest::{Digest, files_below};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The store could not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder could not be used.
    #[error("cannot {what} `{path}`: {error}")]
    Disk {
        /// What was tried.
        what: &'static str,
        /// On which path.
        path: PathBuf,
        /// What the system said.
        #[source]
        error: io::Error,
    },
    /// A file of ours does not hold what it should.
    #[error("`{path}` is not a {what} of this version of sft-run ({error}): remove it")]
    Unreadable {
        /// What the file should be.
        what: &'static str,
        /// Its path.
        path: PathBuf,
        /// What is wrong in it.
        error: String,
    },
}

/// Adds to a system error what was tried and where.
pub(super) fn disk<T>(result: io::Result<T>, what: &'static str, path: &Path) -> Result<T, Error> {
    result.map_err(|error| Error::Disk { what, path: path.to_owned(), error })
}

/// The folder of work that is going on or was interrupted.
pub(super) const PARTIAL: &str = "partial";

/// The store in one folder.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    stats: Mutex<StatCache>,
}

/// A finished stage output.
#[derive(Clone, Debug, PartialEq)]
pub struct Artifact {
    /// What is known of it.
    pub record: Record,
    /// The folder with the stage's files.
    pub output: PathBuf,
}

/// What stands under a fingerprint.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    /// An artifact whose files are the recorded ones.
    Whole(Box<Artifact>),
    /// Nothing.
    Missing,
    /// Something that was changed since; a fragment that says what.
    Damaged(String),
}

/// What [`Work::commit`] records beside the files.
#[derive(Clone, Debug)]
pub struct Made {
    /// The job.
    pub job: serde_json::Value,
    /// Digests of the inputs.
    pub inputs: BTreeMap<String, Digest>,
    /// Numbers that the stage reported.
    pub facts: BTreeMap<String, f64>,
}

impl Store {
    /// The store in `root`, which need not exist yet.
    pub fn open(root: &Path) -> Store {
        Store { root: root.to_owned(), stats: Mutex::new(StatCache::open(root)) }
    }

    /// The folder of the store.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The hash of a file or folder anywhere, from the table of unchanged files where it can be.
    pub fn digest(&self, path: &Path) -> io::Result<Digest> {
        self.stats().digest(path)
    }

    /// Keeps the table of unchanged files for the next process.
    pub fn save(&self) -> Result<(), Error> {
        disk(self.stats().save(), "write the table of file hashes in", &self.root)
    }

    /// Looks up the output of a stage and holds its files to the record.
    ///
    /// A file whose size, time and inode are the recorded ones is not read again.
    pub fn find(&self, kind: &str, fingerprint: Digest) -> Found {
        let folder = self.folder(kind, fingerprint);
        if !folder.exists() {
            return Found::Missing;
        }
        match self.read(&folder, fingerprint) {
            Ok(artifact) => Found::Whole(Box::new(artifact)),
            Err(reason) => Found::Damaged(reason),
        }
    }

    /// Whether interrupted work on `fingerprint` was left behind.
    pub fn has_partial(&self, fingerprint: Digest) -> bool {
        self.partial(fingerprint).join("output").exists()
    }

    /// Whether a process is making `fingerprint` now.
    pub fn is_in_work(&self, fingerprint: Digest) -> bool {
        guard::is_held(&self.root.join("locks").join(fingerprint.to_string()))
    }

    /// Asks for the right to make `fingerprint`, without waiting.
    pub fn claim(&self, fingerprint: Digest, holder: &str) -> Result<Claim, Error> {
        self.ignore_in_git()?;
        let folder = self.root.join("locks");
        disk(guard::claim(&folder, fingerprint, holder), "lock a file in", &folder)
    }

    /// Begins to make an artifact in a folder of its own.
    ///
    /// With `resume`, files that interrupted work left there stay; without, the folder is empty.
    pub fn begin(
        &self,
        kind: &str,
        fingerprint: Digest,
        guard: Guard,
        resume: bool,
    ) -> Result<Work<'_>, Error> {
        let folder = self.partial(fingerprint);
        let output = folder.join("output");
        if !resume && folder.exists() {
            disk(fs::remove_dir_all(&folder), "remove interrupted work in", &folder)?;
        }
        let continues = output.exists();
        disk(fs::create_dir_all(&output), "make", &output)?;
        disk(atomic_file::remove_leftovers(&output), "clear", &output)?;
        Ok(Work {
            store: self,
            kind: kind.to_owned(),
            fingerprint,
            folder,
            output,
            continues,
            _guard: guard,
        })
    }

    pub(super) fn folder(&self, kind: &str, fingerprint: Digest) -> PathBuf {
        self.root.join(kind).join(fingerprint.to_string())
    }

    pub(super) fn partial(&self, fingerprint: Digest) -> PathBuf {
        self.root.join(PARTIAL).join(fingerprint.to_string())
    }

    pub(super) fn stats(&self) -> MutexGuard<'_, StatCache> {
        self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the cache out of commits that add everything.
    fn ignore_in_git(&self) -> Result<(), Error> {
        let path = self.root.join(".gitignore");
        if path.exists() {
            return Ok(());
        }
        disk(atomic_file::write(&path, b"*\n"), "write", &path)
    }

    fn read(&self, folder: &Path, fingerprint: Digest) -> Result<Artifact, String> {
        let text = fs::read(folder.join("artifact.json"))
            .map_err(|error| format!("its record cannot be read: {error}"))?;
        let record: Record = serde_json::from_slice(&text)
            .map_err(|error| format!("its record is of another version: {error}"))?;
        if record.version != record::VERSION || record.fingerprint != fingerprint {
            return Err("its record is of another version".to_owned());
        }
        let output = folder.join("output");
        let files = files_below(&output).map_err(|error| format!("its folder: {error}"))?;
        if let Some((name, _)) = files.iter().find(|(name, _)| !record.files.contains_key(name)) {
            return Err(format!("`{name}` was added to it"));
        }
        for (name, file) in &record.files {
            let path = output.join(name);
            let digest = self.digest(&path).map_err(|error| format!("`{name}`: {error}"))?;
            if digest != file.digest {
                return Err(format!("`{name}` was changed"));
            }
        }
        Ok(Artifact { record, output })
    }
}

/// An artifact in the making; the folder outlives a process that dies.
#[derive(Debug)]
pub struct Work<'s> {
    store: &'s Store,
    kind: String,
    fingerprint: Digest,
    folder: PathBuf,
    output: PathBuf,
    continues: bool,
    _guard: Guard,
}

impl Work<'_> {
    /// The folder into which the stage writes.
    pub fn output(&self) -> &Path {
        &self.output
    }

    /// Whether files of interrupted work lie there.
    pub fn continues(&self) -> bool {
        self.continues
    }

    /// Makes the finished folder an artifact; one that stood there before is replaced.
    pub fn commit(self, made: Made) -> Result<Artifact, Error> {
        // Nobody writes there any more: what still has a temporary name was given up.
        disk(atomic_file::remove_leftovers(&self.output), "clear", &self.output)?;
        let files = self.files()?;
        let record = Record {
            version: record::VERSION,
            kind: self.kind.clone(),
            fingerprint: self.fingerprint,
            job: made.job,
            inputs: made.inputs,
            output: record::output_digest(&files),
            files,
            // JSON has no word for the others, and a record must be readable again.
            facts: made.facts.into_iter().filter(|(_, value)| value.is_finite()).collect(),
        };
        let path = self.folder.join("artifact.json");
        let text = disk(serde_json::to_vec_pretty(&record).map_err(Into::into), "write", &path)?;
        disk(atomic_file::write(&path, &text), "write", &path)?;
        let place = self.take_place()?;
        let output = place.join("output");
        let mut stats = self.store.stats();
        for (name, file) in &record.files {
            let path = output.join(name);
            disk(stats.trust(&path, file.digest), "read", &path)?;
        }
        disk(stats.save(), "write the table of file hashes in", &self.store.root)?;
        Ok(Artifact { record, output })
    }

    /// Removes what was done.
    pub fn discard(self) -> Result<(), Error> {
        disk(fs::remove_dir_all(&self.folder), "remove", &self.folder)
    }

    /// Hashes every file and sees that it is on the disk.
    fn files(&self) -> Result<BTreeMap<String, FileRecord>, Error> {
        let mut files = BTreeMap::new();
        for (name, path) in disk(files_below(&self.output), "list", &self.output)? {
            let file = disk(File::open(&path), "read", &path)?;
            disk(file.sync_all(), "write", &path)?;
            let size = disk(file.metadata(), "read", &path)?.len();
            let digest = disk(Digest::of_file(&path), "read", &path)?;
            if let Some(parent) = path.parent() {
                disk(atomic_file::sync_folder(parent), "write", parent)?;
            }
            files.insert(name, FileRecord { digest, size });
        }
        Ok(files)
    }

    fn take_place(&self) -> Result<PathBuf, Error> {
        let place = self.store.folder(&self.kind, self.fingerprint);
        let old = self.folder.with_extension("old");
        if old.exists() {
            disk(fs::remove_dir_all(&old), "remove", &old)?;
        }
        if place.exists() {
            disk(fs::rename(&place, &old), "replace", &place)?;
        }
        disk(atomic_file::rename_folder(&self.folder, &place), "rename", &self.folder)?;
        if old.exists() {
            disk(fs::remove_dir_all(&old), "remove", &old)?;
        }
        Ok(place)
    }
}
