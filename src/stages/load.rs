//! The load stage.

use super::{Folders, Outcome};
use crate::spec::event::Sink;
use crate::spec::job::LoadJob;
use std::sync::atomic::AtomicBool;

/// Why load failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The stage is not in this build.
    #[error("the load stage is not built yet: take it out of `stages`")]
    NotBuilt,
}

/// Runs the stage.
pub fn run(
    _job: &LoadJob,
    _folders: &Folders,
    _sink: &dyn Sink,
    _stop: &AtomicBool,
) -> Result<Outcome, super::Error> {
    Err(Error::NotBuilt.into())
}
