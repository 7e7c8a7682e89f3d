//! One process at a time makes an artifact or writes a run folder: OS file locks that name their
//! holder.

use crate::base::digest::Digest;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::Path;

/// The right to write something; given up when dropped, by the system when the process dies.
#[derive(Debug)]
pub struct Guard {
    /// Holds the system's lock as long as it is open.
    file: File,
}

impl Guard {
    /// Lets the file name nobody, since the work came to its end: a name that is left in a file that
    /// nobody holds is that of a process that died.
    pub fn settle(&self) -> io::Result<()> {
        self.file.set_len(0)
    }
}

/// Whom a lock file names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// The holder's own words about itself.
    pub words: String,
    /// Whether it holds the file still.
    pub is_alive: bool,
}

/// Whom the lock file at `path` names; none when it is missing or names nobody.
pub fn named(path: &Path) -> Option<Named> {
    let words = fs::read_to_string(path).ok().filter(|words| !words.trim().is_empty())?;
    Some(Named { words, is_alive: is_held(path) })
}

/// Whether a process holds the lock file at `path`.
pub fn is_held(path: &Path) -> bool {
    // Shared and for a moment only: others may look at the same time.
    File::open(path)
        .is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

/// What came of asking for a [`Guard`].
#[derive(Debug)]
pub enum Claim {
    /// It is ours.
    Mine(Guard),
    /// Another process holds it; its own words about itself, such as `process 4711: sft-run …`.
    Theirs(String),
}

/// Asks for the right to make `fingerprint`, without waiting; `holder` is what others will read.
pub(super) fn claim(folder: &Path, fingerprint: Digest, holder: &str) -> io::Result<Claim> {
    fs::create_dir_all(folder)?;
    claim_file(&folder.join(fingerprint.to_string()), holder)
}

/// Asks for the right that the lock file at `path` stands for, without waiting; its folder exists.
///
/// The file is never removed: a process that waits for it has it open, and a second file of the
/// same name would be a second lock.
pub fn claim_file(path: &Path, holder: &str) -> io::Result<Claim> {
    let mut options = OpenOptions::new();
    let mut file = options.read(true).write(true).create(true).truncate(false).open(path)?;
    match file.try_lock() {
        Ok(()) => {
            file.set_len(0)?;
            file.rewind()?;
            file.write_all(holder.as_bytes())?;
            Ok(Claim::Mine(Guard { file }))
        }
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            file.read_to_string(&mut text)?;
            let named = !text.trim().is_empty();
            let unnamed = "another process".to_owned();
            Ok(Claim::Theirs(if named { text.trim().to_owned() } else { unnamed }))
        }
        Err(TryLockError::Error(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_claim_reads_the_first_holders_name() {
        let folder = tempfile::tempdir().unwrap();
        let fingerprint = Digest::of_bytes(b"x");
        let first = claim(folder.path(), fingerprint, "process 1: first").unwrap();
        assert!(matches!(first, Claim::Mine(_)));
        let second = claim(folder.path(), fingerprint, "process 2: second").unwrap();
        assert!(matches!(second, Claim::Theirs(holder) if holder == "process 1: first"));
        let path = folder.path().join(fingerprint.to_string());
        let words = "process 1: first".to_owned();
        assert_eq!(named(&path), Some(Named { words: words.clone(), is_alive: true }));
        drop(first);
        assert_eq!(named(&path), Some(Named { words, is_alive: false }), "it died");
        let third = claim(folder.path(), fingerprint, "process 3").unwrap();
        let Claim::Mine(third) = third else { panic!("nobody holds it") };
        third.settle().unwrap();
        drop(third);
        assert_eq!(named(&path), None, "its work is done");
    }
}
