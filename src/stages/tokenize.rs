//! The tokenize stage.

use super::{Folders, Outcome};
use crate::spec::event::Sink;
use crate::spec::job::{TokenizeJob, TokenizerKind};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

/// Why tokenize failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The stage is not in this build.
    #[error("the tokenize stage is not built yet: take it out of `stages`")]
    NotBuilt,
}

/// Runs the stage.
pub fn run(
    _job: &TokenizeJob,
    _folders: &Folders,
    _sink: &dyn Sink,
    _stop: &AtomicBool,
) -> Result<Outcome, super::Error> {
    Err(Error::NotBuilt.into())
}

/// Number of ids that the tokenizer in `files` can produce.
pub fn vocab_size(
    _kind: TokenizerKind,
    _files: &BTreeMap<String, PathBuf>,
) -> Result<usize, Error> {
    Err(Error::NotBuilt)
}
