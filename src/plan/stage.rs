//! A stage of a plan: its job, where its inputs come from, where its settings were written.

use crate::base::digest::Digest;
pub use crate::spec::backend::Backend;
use crate::spec::job::Job;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A stage of a plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Stage {
    /// Its name in the recipe.
    pub name: String,
    /// What it is asked to do.
    pub job: Job,
    /// Where its inputs come from, by the names that [`Job`] gives them.
    pub inputs: BTreeMap<String, Source>,
    /// The class of device it computes on, when that can change the result.
    pub backend: Option<Backend>,
    /// Where each setting was written, by its path in the job (`model.optim.lr`):
    /// `recipes/a.yaml:34` or `override 1`. Defaults have no entry.
    pub origins: BTreeMap<String, String>,
}

impl Stage {
    /// Whether interrupted work on it is continued; other kinds start over.
    pub fn continues(&self) -> bool {
        matches!(self.job, Job::Train(_))
    }
}

/// Where an input comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The output of the stage of this name.
    Stage(String),
    /// A file or folder from outside.
    File(Outside),
}

impl Source {
    /// `stage NAME` or `file PATH`, as the lock file has it.
    pub fn describe(&self) -> String {
        match self {
            Source::Stage(name) => format!("stage {name}"),
            Source::File(outside) => format!("file {}", outside.written),
        }
    }
}

/// A file or folder from outside, or several files that differ in their endings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outside {
    /// Where it lies; without the ending when there are several.
    pub path: PathBuf,
    /// How the recipe writes it; this stands in the lock file.
    pub written: String,
    /// Endings of the files (`.bin`, `.idx`); empty for one file.
    pub endings: &'static [&'static str],
    /// Hash of its content; none when it is missing.
    pub digest: Option<Digest>,
}

impl Outside {
    /// The files that it consists of.
    pub fn files(&self) -> Vec<PathBuf> {
        if self.endings.is_empty() {
            return vec![self.path.clone()];
        }
        let with = |ending: &&str| {
            let mut path = self.path.clone().into_os_string();
            path.push(ending);
            PathBuf::from(path)
        };
        self.endings.iter().map(with).collect()
    }

    /// The hash of its content, when `digest` knows all its files.
    pub fn digest_by(&self, digest: impl Fn(&Path) -> Option<Digest>) -> Option<Digest> {
        if self.endings.is_empty() {
            return digest(&self.path);
        }
        let digests: Option<Vec<_>> = self.files().iter().map(|path| digest(path)).collect();
        Some(Digest::of_files(self.endings.iter().copied().zip(digests?)))
    }
}

/// Something that a run needs and does not have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// What is missing, a lowercase fragment.
    pub what: String,
    /// The recipe's key that decides it.
    pub key: String,
    /// What to do about it.
    pub help: String,
}

impl std::fmt::Display for Missing {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} (`{}`): {}", self.what, self.key, self.help)
    }
}
