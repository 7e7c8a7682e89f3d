//! `report.html`: a run on one page that needs no other file and no network.
//!
//! The page is a minijinja template with its style sheet and script put in; text from the run is
//! escaped by the template, numbers for the charts go in as JSON that the script reads.

mod curves;
mod page;
mod tables;

use super::numbers;
use super::record::{Error, RunRecord};
use crate::base::atomic_file;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, context};
use std::path::Path;

/// The file's name in the run folder.
pub const FILE: &str = "report.html";

const TEMPLATE: &str = include_str!("report.html");
const STYLE: &str = include_str!("report.css");
const SCRIPT: &str = include_str!("report.js");

/// The page of `record`.
pub fn render(record: &RunRecord) -> Result<String, Error> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?;
    environment.set_syntax(syntax);
    environment.add_filter("quantity", numbers::quantity);
    environment.add_filter("duration", numbers::duration);
    // The name ends in `.html`, which is what turns escaping on.
    environment.add_template(FILE, TEMPLATE)?;
    let page = Serde(page::Page::of(record));
    let values = context! { page, style => STYLE, script => SCRIPT };
    Ok(environment.get_template(FILE)?.render(values)?)
}

/// Reads `run_folder` and writes its `report.html`.
pub fn write(run_folder: &Path) -> Result<(), Error> {
    let text = render(&RunRecord::read(run_folder)?)?;
    let path = run_folder.join(FILE);
    let written = atomic_file::write(&path, text.as_bytes());
    written.map_err(|source| Error::Write { path, source })
}
