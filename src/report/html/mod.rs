//! `report.html`: a run on one page that needs no other file and no network.
//!
//! Numbers for the charts go in as JSON that the script reads.

mod curves;
mod page;
mod tables;

use super::pages::{self, Source};
use super::record::{Error, RunRecord};
use crate::base::atomic_file;
use std::path::Path;

/// The file's name in the run folder.
pub const FILE: &str = "report.html";

const SOURCE: Source =
    Source { file: FILE, template: include_str!("report.html"), script: include_str!("report.js") };

/// The page of `record`.
pub fn render(record: &RunRecord) -> Result<String, Error> {
    pages::render(&SOURCE, page::Page::of(record))
}

/// Reads `run_folder` and writes its `report.html`.
pub fn write(run_folder: &Path) -> Result<(), Error> {
    let text = render(&RunRecord::read(run_folder)?)?;
    let path = run_folder.join(FILE);
    let written = atomic_file::write(&path, text.as_bytes());
    written.map_err(|source| Error::Write { path, source })
}
