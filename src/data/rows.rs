//! Rows of a JSONL file, with the line of everything that is wrong.

use super::template::missing_field;
use crate::base::numbers;
use rayon::prelude::*;
use serde_json::{Map, Value};
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

/// Why a file's rows cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read `{}`: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Some rows are wrong.
    #[error("{count} of {total} rows of `{}` cannot be used:\n{}", path.display(), .first.join("\n"))]
    Bad {
        /// The file.
        path: PathBuf,
        /// How many are wrong.
        count: usize,
        /// How many there are.
        total: usize,
        /// The first of each reason, as `file:line: reason, and N more like it`.
        first: Vec<String>,
    },
}

/// A row's fields, in the order of their names.
pub type Fields = Map<String, Value>;

/// A row: a JSON object.
#[derive(Clone, Debug)]
pub struct Row<'a> {
    /// Its fields.
    pub fields: Fields,
    /// The line that it was read from, which alone has the order of nested keys.
    pub text: &'a str,
}

impl<'a> Row<'a> {
    /// Reads a line; else what is wrong with it.
    pub fn parse(text: &'a str) -> Result<Row<'a>, String> {
        let fields = serde_json::from_str(text).map_err(|error| {
            // The line number that serde_json adds is always 1.
            let text = error.to_string().replace(" at line 1 column", " at column");
            format!("it is not a JSON object: {text}")
        })?;
        Ok(Row { fields, text })
    }
}

/// How many wrong rows are shown.
const SHOWN: usize = 5;

/// Rows that are parsed and worked on at a time.
const CHUNK: usize = 4096;

/// Calls `work` on every row (in parallel) and `take` with the results of many rows at a time, in
/// order; ends early when `take` gives false, and tells what was wrong until there.
///
/// Empty lines are passed over. A line that is no JSON object, or on which `work` fails, is wrong:
/// all are counted, and the error names the first few.
pub fn for_each_row<T: Send>(
    path: &Path,
    work: &(dyn Fn(&Row) -> Result<T, String> + Sync),
    mut take: impl FnMut(Vec<T>) -> bool,
) -> Result<(), Error> {
    let mut lines = Lines::open(path)?;
    let mut total = 0;
    let mut bad = BadRows { path, count: 0, first: Vec::new() };
    loop {
        let chunk = lines.next_chunk()?;
        if chunk.is_empty() {
            break;
        }
        total += chunk.len();
        let results: Vec<_> =
            chunk.par_iter().map(|(number, line)| (number, use_line(line, work))).collect();
        let mut good = Vec::with_capacity(results.len());
        for (number, result) in results {
            match result {
                Ok(result) => good.push(result),
                Err(reason) => bad.push(*number, reason),
            }
        }
        if !take(good) {
            break;
        }
    }
    bad.into_result(total)
}

/// Rows that were found wrong.
struct BadRows<'a> {
    path: &'a Path,
    count: usize,
    first: Vec<Alike>,
}

/// Rows that are wrong for the same reason.
struct Alike {
    line: usize,
    reason: String,
    /// How many follow the one at `line`.
    more: usize,
}

impl BadRows<'_> {
    fn push(&mut self, line: usize, reason: String) {
        self.count += 1;
        if let Some(alike) = self.first.iter_mut().find(|alike| alike.reason == reason) {
            alike.more += 1;
        } else if self.first.len() < SHOWN {
            self.first.push(Alike { line, reason, more: 0 });
        }
    }

    fn into_result(self, total: usize) -> Result<(), Error> {
        if self.count == 0 {
            return Ok(());
        }
        let told = |alike: &Alike| {
            let more = match alike.more {
                0 => String::new(),
                more => format!(", and {} more like it", numbers::count(more as u64)),
            };
            format!("{}:{}: {}{more}", self.path.display(), alike.line, alike.reason)
        };
        let first = self.first.iter().map(told).collect();
        Err(Error::Bad { path: self.path.to_path_buf(), count: self.count, total, first })
    }
}

/// Calls `take` with every line of a text file, without its line break.
pub fn for_each_line(path: &Path, mut take: impl FnMut(&str)) -> Result<(), Error> {
    let mut lines = Lines::open(path)?;
    loop {
        let chunk = lines.next_chunk()?;
        if chunk.is_empty() {
            return Ok(());
        }
        for (number, line) in chunk {
            let line = std::str::from_utf8(&line).map_err(|error| Error::Bad {
                path: path.to_path_buf(),
                count: 1,
                total: number,
                first: vec![format!("{}:{number}: {error}", path.display())],
            })?;
            take(line);
        }
    }
}

/// A field's text; else what is wrong.
pub fn text_field<'a>(row: &'a Fields, field: &str) -> Result<&'a str, String> {
    let value = row.get(field).ok_or_else(|| missing_field(field, row))?;
    value.as_str().ok_or_else(|| format!("field `{field}` is {value}, not text"))
}

/// Number of rows of a file (lines that are not empty).
pub fn count(path: &Path) -> Result<usize, Error> {
    let mut lines = Lines::open(path)?;
    let mut count = 0;
    loop {
        let chunk = lines.next_chunk()?.len();
        if chunk == 0 {
            return Ok(count);
        }
        count += chunk;
    }
}

fn use_line<T>(
    line: &[u8],
    work: &(dyn Fn(&Row) -> Result<T, String> + Sync),
) -> Result<T, String> {
    let text = std::str::from_utf8(line).map_err(|error| format!("it is not UTF-8: {error}"))?;
    work(&Row::parse(text)?)
}

/// What some programs write before the first line of a UTF-8 file.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// Lines that are not empty, with their numbers from 1.
struct Lines {
    path: PathBuf,
    reader: BufReader<File>,
    number: usize,
}

impl Lines {
    fn open(path: &Path) -> Result<Lines, Error> {
        let file =
            File::open(path).map_err(|source| Error::Read { path: path.to_path_buf(), source })?;
        Ok(Lines { path: path.to_path_buf(), reader: BufReader::new(file), number: 0 })
    }

    fn next_chunk(&mut self) -> Result<Vec<(usize, Vec<u8>)>, Error> {
        let mut chunk = Vec::new();
        while chunk.len() < CHUNK {
            let mut line = Vec::new();
            let read = self.reader.read_until(b'\n', &mut line);
            let read = read.map_err(|source| Error::Read { path: self.path.clone(), source })?;
            if read == 0 {
                break;
            }
            self.number += 1;
            while line.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
                line.pop();
            }
            if self.number == 1 && line.starts_with(BYTE_ORDER_MARK) {
                line.drain(..BYTE_ORDER_MARK.len());
            }
            if !line.trim_ascii().is_empty() {
                chunk.push((self.number, line));
            }
        }
        Ok(chunk)
    }
}
