//! The load stage: a checkpoint, or fresh weights, as a native checkpoint.

use super::{Folders, Outcome};
use crate::checkpoint::manifest::Progress;
use crate::checkpoint::native::{self, Checkpoint};
use crate::checkpoint::whole;
use crate::model::weights::start_values;
use crate::spec::event::Sink;
use crate::spec::job::LoadJob;
use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

/// Why load failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] native::Error),
}

/// Writes `checkpoint/` into the output folder.
pub fn run(
    job: &LoadJob,
    folders: &Folders,
    _sink: &dyn Sink,
    _stop: &AtomicBool,
) -> Result<Outcome, super::Error> {
    let values = if job.model.restore {
        let checkpoint = Checkpoint::open(folders.input("checkpoint")?).map_err(Error::from)?;
        whole::read_weights(&checkpoint, &job.model.architecture).map_err(Error::from)?
    } else {
        start_values(&job.model.architecture, job.model.seed)
    };
    let count = values.len();
    write(job, folders, values)?;
    Ok(Outcome { facts: BTreeMap::from([("parameters".to_owned(), count as f64)]) })
}

fn write(job: &LoadJob, folders: &Folders, values: Vec<f32>) -> Result<(), Error> {
    let model = whole::build(&job.model.architecture, values)?;
    whole::save(&folders.output.join("checkpoint"), &model, Progress::default(), None)?;
    Ok(())
}
