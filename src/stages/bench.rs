//! The way in for `bench`: the train stage's step, timed on the stage's own inputs.

use super::{Folders, train};
use crate::engine::bench;
use crate::engine::journal::Journal;
use crate::engine::training::METRICS_FILE;
use crate::spec::event::StepMetrics;
use crate::spec::job::{Split, TrainJob};

use std::io;
use std::path::Path;

pub use crate::engine::bench::{Report, Steps};

/// Writes what a train stage writes of a step, `steps` times, into `folder`.
pub fn journal(folder: &Path, steps: &[StepMetrics]) -> io::Result<()> {
    let (mut journal, _) = Journal::open(&folder.join(METRICS_FILE), 0)?;
    for metrics in steps {
        journal.trace(metrics)?;
        journal.step(metrics)?;
    }
    Ok(())
}

/// Times the step of `job`; reads its inputs and writes nothing.
pub fn run(job: &TrainJob, folders: &Folders, steps: Steps) -> Result<Report, super::Error> {
    let data = train::open(job, folders, Split::Train)?;
    let start = (folders.backend, folders.input("model")?);
    let report = bench::run(job, start, &data, steps);
    Ok(report.map_err(train::Error::Training)?)
}
