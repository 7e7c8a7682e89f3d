//! Hashes of files that have not changed since they were hashed, so that large inputs are read once.
//!
//! A file counts as unchanged when its size, time of change and inode are the ones recorded.
//! A hash taken less than [`SETTLED`] after the file's last change is not recorded: a second change
//! within the clock's grain would look the same.

use crate::base::atomic_file;
use crate::base::digest::{Digest, files_below};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Version of `stat.json`. 1: the first.
const VERSION: u32 = 1;

/// Seconds that a file must have stood unchanged before its hash is recorded.
const SETTLED: i64 = 2;

/// The table and where it is kept.
#[derive(Debug)]
pub(super) struct StatCache {
    folder: PathBuf,
    files: BTreeMap<PathBuf, Entry>,
    changed: bool,
    /// The file system's clock when this process first hashed something.
    started: Option<i64>,
}

#[derive(Serialize, Deserialize)]
struct Saved {
    version: u32,
    files: BTreeMap<PathBuf, Entry>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Entry {
    stamp: Stamp,
    digest: Digest,
}

/// What changes when a file changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    size: u64,
    seconds: i64,
    nanoseconds: i64,
    device: u64,
    inode: u64,
}

impl Stamp {
    fn of(metadata: &Metadata) -> Stamp {
        Stamp {
            size: metadata.size(),
            seconds: metadata.mtime(),
            nanoseconds: metadata.mtime_nsec(),
            device: metadata.dev(),
            inode: metadata.ino(),
        }
    }
}

impl StatCache {
    /// Reads the table kept in `folder`; one that is missing or unreadable is empty, which costs
    /// time and nothing else.
    pub(super) fn open(folder: &Path) -> StatCache {
        let text = fs::read(folder.join("stat.json")).unwrap_or_default();
        let saved = serde_json::from_slice::<Saved>(&text).ok();
        let files = saved.filter(|saved| saved.version == VERSION).map(|saved| saved.files);
        StatCache {
            folder: folder.to_owned(),
            files: files.unwrap_or_default(),
            changed: false,
            started: None,
        }
    }

    /// The hash of a file, or of a folder as [`Digest::of_folder`] has it.
    pub(super) fn digest(&mut self, path: &Path) -> io::Result<Digest> {
        if !path.is_dir() {
            return self.file(path);
        }
        let mut files = Vec::new();
        for (name, path) in files_below(path)? {
            files.push((name, self.file(&path)?));
        }
        Ok(Digest::of_files(files.iter().map(|(name, digest)| (name.as_str(), *digest))))
    }

    /// Records the hash of a file that this process has just written and closed.
    pub(super) fn trust(&mut self, path: &Path, digest: Digest) -> io::Result<()> {
        let stamp = Stamp::of(&fs::metadata(path)?);
        self.files.insert(std::path::absolute(path)?, Entry { stamp, digest });
        self.changed = true;
        Ok(())
    }

    /// Writes the table if it changed; entries of files that are gone are left out.
    pub(super) fn save(&mut self) -> io::Result<()> {
        if !self.changed {
            return Ok(());
        }
        self.files.retain(|path, _| path.exists());
        let saved = Saved { version: VERSION, files: self.files.clone() };
        let text = serde_json::to_vec(&saved)?;
        atomic_file::write(&self.folder.join("stat.json"), &text)?;
        self.changed = false;
        Ok(())
    }

    fn file(&mut self, path: &Path) -> io::Result<Digest> {
        let path = std::path::absolute(path)?;
        let stamp = Stamp::of(&fs::metadata(&path)?);
        if let Some(entry) = self.files.get(&path).filter(|entry| entry.stamp == stamp) {
            return Ok(entry.digest);
        }
        let started = self.started()?;
        let digest = Digest::of_file(&path)?;
        let settled = stamp.seconds + SETTLED < started;
        if settled && Stamp::of(&fs::metadata(&path)?) == stamp {
            self.files.insert(path, Entry { stamp, digest });
            self.changed = true;
        }
        Ok(digest)
    }

    /// The file system's clock, read from a file made for it: the program has no clock of its own.
    fn started(&mut self) -> io::Result<i64> {
        if let Some(started) = self.started {
            return Ok(started);
        }
        fs::create_dir_all(&self.folder)?;
        let probe = self.folder.join(format!("clock-{}", std::process::id()));
        let seconds = File::create(&probe)?.metadata()?.mtime();
        fs::remove_file(&probe)?;
        self.started = Some(seconds);
        Ok(seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    fn write_old(path: &Path, text: &str, seconds: u64) {
        let mut file = File::create(path).unwrap();
        io::Write::write_all(&mut file, text.as_bytes()).unwrap();
        file.set_modified(UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
    }

    #[test]
    fn a_settled_file_is_read_once_and_again_after_a_change() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows");
        write_old(&path, "one", 1000);
        let mut stats = StatCache::open(folder.path());
        assert_eq!(stats.digest(&path).unwrap(), Digest::of_bytes(b"one"));
        stats.save().unwrap();
        // Same size, time and inode: the recorded hash is believed without reading.
        write_old(&path, "two", 1000);
        assert_eq!(StatCache::open(folder.path()).digest(&path).unwrap(), Digest::of_bytes(b"one"));
        write_old(&path, "two", 1001);
        assert_eq!(StatCache::open(folder.path()).digest(&path).unwrap(), Digest::of_bytes(b"two"));
    }

    #[test]
    fn a_file_written_just_now_is_not_recorded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows");
        atomic_file::write(&path, b"one").unwrap();
        let mut stats = StatCache::open(folder.path());
        stats.digest(&path).unwrap();
        assert!(stats.files.is_empty());
    }

    #[test]
    fn a_folder_has_the_hash_that_base_gives_it() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("model");
        atomic_file::write(&inner.join("b/c"), b"x").unwrap();
        atomic_file::write(&inner.join("a"), b"y").unwrap();
        let mut stats = StatCache::open(folder.path());
        assert_eq!(stats.digest(&inner).unwrap(), Digest::of_folder(&inner).unwrap());
    }
}
