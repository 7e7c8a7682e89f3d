//! The journal of a sweep: JSON lines that are only ever appended, from which it is resumed.

use super::sampler::Point;
use super::space::Space;
use crate::spec::recipe::sweep::SamplerName;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The file's name in the sweep's folder.
pub const FILE: &str = "journal.jsonl";
/// Version of the lines. 1: the first.
pub const VERSION: u32 = 1;

/// What a sweep is: all that decides which trials it has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// Version of the lines.
    pub version: u32,
    /// The recipe's name.
    pub name: String,
    /// The recipe's path, absolute.
    pub recipe: PathBuf,
    /// The recipe with what every trial has, resolved.
    pub resolved: String,
    /// What is tried.
    pub space: Space,
    /// How.
    pub sampler: SamplerName,
    /// Number of trials.
    pub trials: usize,
    /// The seed.
    pub seed: u64,
    /// What is compared.
    pub metric: String,
    /// Whether small is best.
    pub small_is_best: bool,
    /// One in so many goes on at a rung.
    pub asha: Option<u64>,
    /// Steps of the rungs.
    pub rungs: Vec<u64>,
    /// A trial of the estimator uses the results of the trials that are so many before it.
    pub lag: usize,
}

/// A line of the journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Line {
    /// The first line.
    Sweep(Box<Header>),
    /// A trial was started for the first time.
    Started {
        /// Its number, from 0.
        trial: usize,
        /// Its points.
        points: Vec<Point>,
    },
    /// A trial reached a rung.
    Rung {
        /// Its number.
        trial: usize,
        /// The rung, from 0.
        rung: usize,
        /// Steps done.
        step: u64,
        /// What is compared, as it stood then.
        value: f64,
    },
    /// A trial is not gone on with after the rung it reached last.
    Stopped {
        /// Its number.
        trial: usize,
    },
    /// A trial is done.
    Done {
        /// Its number.
        trial: usize,
        /// What is compared.
        value: f64,
        /// All numbers of its run.
        numbers: BTreeMap<String, f64>,
        /// Seconds of the last start.
        seconds: f64,
    },
    /// A trial failed.
    Failed {
        /// Its number.
        trial: usize,
        /// Why.
        error: String,
    },
}

/// Why a journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read or written.
    #[error("cannot use the sweep's journal `{}`: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line is not one of a journal.
    #[error("`{}` line {line} is not what this version writes: {source}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Why.
        source: serde_json::Error,
    },
    /// There is no first line.
    #[error("`{}` does not begin with the sweep it belongs to", .0.display())]
    Header(PathBuf),
}

/// A journal that is written to.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
}

impl Journal {
    /// Begins a journal.
    pub fn create(folder: &Path, header: &Header) -> Result<Journal, Error> {
        let mut journal = Journal::open(folder)?;
        journal.append(&Line::Sweep(Box::new(header.clone())))?;
        Ok(journal)
    }

    /// Opens a journal to go on with it; a line that a killed process left half written is ended.
    pub fn open(folder: &Path) -> Result<Journal, Error> {
        let path = folder.join(FILE);
        let fail = |source| Error::File { path: path.clone(), source };
        let text = std::fs::read_to_string(&path).or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => Ok(String::new()),
            _ => Err(fail(error)),
        })?;
        let mut file = OpenOptions::new().append(true).create(true).open(&path).map_err(fail)?;
        if !text.is_empty() && !text.ends_with('\n') {
            file.write_all(b"\n").map_err(fail)?;
        }
        Ok(Journal { path, file })
    }

    /// Appends a line and hands it to the disk.
    pub fn append(&mut self, line: &Line) -> Result<(), Error> {
        let text = serde_json::to_string(line).map_err(io::Error::from);
        let written = text
            .and_then(|text| writeln!(self.file, "{text}"))
            .and_then(|()| self.file.sync_data());
        written.map_err(|source| Error::File { path: self.path.clone(), source })
    }
}

/// Reads a journal: its header and its lines. A line that was not written whole counts as not
/// written; only the last line of a process that was killed can be one.
pub fn read(folder: &Path) -> Result<(Header, Vec<Line>), Error> {
    let path = folder.join(FILE);
    let text = std::fs::read_to_string(&path);
    let text = text.map_err(|source| Error::File { path: path.clone(), source })?;
    let mut lines = Vec::new();
    for (index, line) in text.lines().enumerate() {
        match serde_json::from_str::<Line>(line) {
            Ok(line) => lines.push(line),
            Err(error) if error.is_eof() => {}
            Err(source) => return Err(Error::Line { path, line: index + 1, source }),
        }
    }
    if lines.is_empty() {
        return Err(Error::Header(path));
    }
    match lines.remove(0) {
        Line::Sweep(header) => Ok((*header, lines)),
        _ => Err(Error::Header(path)),
    }
}
