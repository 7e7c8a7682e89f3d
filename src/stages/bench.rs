//! The way in for `bench`: the train stage's step, timed on the stage's own inputs.

use super::{Folders, train};
use crate::engine::bench;
use crate::spec::job::{Split, TrainJob};

pub use crate::engine::bench::{Report, Steps};

/// Times the step of `job`; reads its inputs and writes nothing.
pub fn run(job: &TrainJob, folders: &Folders, steps: Steps) -> Result<Report, super::Error> {
    let mut data = train::open(job, folders, Split::Train)?;
    let report = bench::run(job, folders.input("model")?, &mut data, steps);
    Ok(report.map_err(train::Error::Training)?)
}
