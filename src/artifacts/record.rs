//! What is kept about an artifact: what it was asked to be, what it was made of, what came out.

use crate::base::digest::Digest;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Version of `artifact.json`. 1: the first.
pub const VERSION: u32 = 1;

/// The content of `artifact.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// [`VERSION`] of the program that wrote it.
    pub version: u32,
    /// The stage's kind.
    pub kind: String,
    /// The name under which the artifact is stored.
    pub fingerprint: Digest,
    /// The job.
    pub job: serde_json::Value,
    /// Digests of the inputs by name.
    pub inputs: BTreeMap<String, Digest>,
    /// Digest of the output: every file except the measured ones.
    pub output: Digest,
    /// Every file of the output folder by relative name, the measured ones included.
    pub files: BTreeMap<String, FileRecord>,
    /// Numbers that the stage reported.
    pub facts: BTreeMap<String, f64>,
}

/// One file of an output folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRecord {
    /// Hash of its content.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
}

impl Record {
    /// Bytes of all files.
    pub fn size(&self) -> u64 {
        self.files.values().map(|file| file.size).sum()
    }
}

/// Whether the file of this relative name holds measured times.
///
/// Such files differ between two runs that did the same, so they are no part of the output's
/// digest. No stage may read them from an input; people and reports do. Their own hashes stand in
/// the record all the same, so that a damaged one is noticed.
pub fn is_measured(name: &str) -> bool {
    let base = name.rsplit('/').next().unwrap_or(name);
    base == "metrics.jsonl" || base.rsplit_once('.').is_some_and(|(_, ending)| ending == "log")
}

/// The digest of an output whose files are `files`.
pub fn output_digest(files: &BTreeMap<String, FileRecord>) -> Digest {
    let hashed = files.iter().filter(|(name, _)| !is_measured(name));
    Digest::of_files(hashed.map(|(name, file)| (name.as_str(), file.digest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> FileRecord {
        FileRecord { digest: Digest::of_bytes(text.as_bytes()), size: text.len() as u64 }
    }

    #[test]
    fn measured_files_leave_the_output_digest_alone() {
        let mut files = BTreeMap::from([("a.bin".to_owned(), file("a"))]);
        let before = output_digest(&files);
        files.insert("metrics.jsonl".to_owned(), file("0.1 s"));
        files.insert("rank/0.log".to_owned(), file("12:00"));
        assert_eq!(output_digest(&files), before);
        files.insert("catalog".to_owned(), file("x"));
        assert_ne!(output_digest(&files), before);
    }
}
