//! Training: one thread per rank, each with a session; what ends it.

use super::session::Session;
use super::state::Begin;
use super::step;
use super::validation;
use super::watch::Watch;
use crate::checkpoint::manifest::Progress;
use crate::checkpoint::native;
use crate::data::feed::{self, Feed};
use crate::data::sampler;
use crate::parallel::nodes::{NodeFailure, Nodes};
use crate::parallel::ranks::{self, Cause, Failure};
use crate::spec::backend::Backend;
use crate::spec::event::{Event, Sink};
use crate::spec::fault::Fault;
use crate::spec::job::TrainJob;
use crate::spec::optimization::Degrees;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

/// Why training did not finish.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting of a later version.
    #[error("{0}")]
    NotBuilt(NotBuilt),
    /// The batch cannot be cut.
    #[error(transparent)]
    Cut(#[from] sampler::Error),
    /// A step failed.
    #[error(transparent)]
    Step(#[from] step::Error),
    /// A validation failed.
    #[error(transparent)]
    Validation(#[from] validation::Error),
    /// The model cannot be measured.
    #[error("cannot measure the model after step {step}")]
    Watch {
        /// Steps done.
        step: u64,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A checkpoint cannot be read or written.
    #[error(transparent)]
    Checkpoint(#[from] native::Error),
    /// The next step's data cannot be read.
    #[error(transparent)]
    Data(#[from] feed::Error),
    /// The checkpoint was to go on with other sequences.
    #[error(
        "the data of step {step} is not what the interrupted training was to read next: \
         start over with --no-cache"
    )]
    OtherData {
        /// The step.
        step: u64,
    },
    /// The checkpoint that training was to continue from cannot be: why.
    #[error("training cannot continue from {path}: {reason}")]
    Resume {
        /// The checkpoint.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The optimizer's state cannot be made.
    #[error("cannot make the optimizer's state")]
    Tensor(#[from] candle_core::Error),
    /// A file of the output folder.
    #[error("cannot write {path}")]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A rank failed, and the others were ended.
    #[error(transparent)]
    Rank(Box<Failure<Error>>),
    /// Another node failed before the ranks began.
    #[error(transparent)]
    Node(#[from] NodeFailure),
    /// The stop flag was set; the work is saved.
    #[error("stopped after step {step}; the next run goes on from there")]
    Stopped {
        /// Steps done.
        step: u64,
    },
}

impl Error {
    /// Whether it may well not happen again: see [`NodeFailure::is_accident`].
    pub fn is_accident(&self) -> bool {
        match self {
            Error::Rank(failure) => failure.cause.is_accident(),
            Error::Node(failure) => failure.is_accident,
            _ => false,
        }
    }

    /// Whether every rank comes to it by the same numbers.
    fn is_everywhere(&self) -> bool {
        matches!(
            self,
            Error::Cut(_)
                | Error::Step(step::Error::NotFinite { .. } | step::Error::NothingLearned { .. })
                | Error::Validation(validation::Error::NothingLearned)
        )
    }
}

/// What a run reads and where it writes.
#[derive(Debug)]
pub struct Run<'a> {
    /// The job.
    pub job: &'a TrainJob,
    /// The checkpoint whose weights training starts from.
    pub start: &'a Path,
    /// The checkpoint of another run that training continues from, if it does.
    pub resume: Option<&'a Path>,
    /// What ranks compute on.
    pub backend: Backend,
    /// The output folder.
    pub output: &'a Path,
    /// The training data.
    pub data: Feed,
    /// The validation data, if it is looked at.
    pub validation: Option<Feed>,
    /// Who measures the model at each validation, if anybody does.
    pub watch: Option<&'a dyn Watch>,
    /// A failure that is asked for.
    pub fault: Option<Fault>,
    /// The nodes that train together, if there are several: each calls [`train`], and node 0 says
    /// where training begins and writes what is kept.
    pub nodes: Option<&'a Arc<Nodes>>,
}

/// Numbers of a finished run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Finished {
    /// Where training stands.
    pub progress: Progress,
    /// Loss of the last step that was logged.
    pub train_loss: Option<f64>,
    /// The last validation's loss, if there was one.
    pub validation_loss: Option<f64>,
}

/// Name of the metrics file in the output folder.
pub const METRICS_FILE: &str = "metrics.jsonl";
/// Name of the finished checkpoint in the output folder.
pub const CHECKPOINT_FOLDER: &str = "checkpoint";

/// Trains on all ranks, to the end, or to the end of the step in which `stop` is set.
#[expect(clippy::needless_pass_by_value, reason = "a run is trained once")]
pub fn train(run: Run<'_>, sink: &dyn Sink, stop: &AtomicBool) -> Result<Finished, Error> {
    check_is_built(run.job)?;
    let begin = Begin::open(&run, sink)?;
    if begin.resumes {
        sink.emit(Event::Resumed { step: begin.progress.step });
    }
    let copies = Mutex::default();
    let ended = ranks::run_on(run.nodes, &run.job.trainer.degrees, |mesh| {
        let mut session = Session::open(&run, &begin, &copies, (mesh, sink))?;
        if session.go_on(stop)? { session.finish().map(Ok) } else { Ok(Err(session.step_done())) }
    });
    let stopped = |step| Error::Stopped { step };
    ended.map_err(first_failure)?.remove(0).map_err(stopped)
}

/// The failure as it is told: which rank it was, unless all ranks see the same.
#[expect(clippy::boxed_local, reason = "it comes in a box")]
pub fn first_failure(failure: Box<Failure<Error>>) -> Error {
    let Failure { rank, at, degrees, cause } = *failure;
    match cause {
        Cause::Error(error) if degrees.world_size() == 1 || error.is_everywhere() => error,
        cause => Error::Rank(Box::new(Failure { rank, at, degrees, cause })),
    }
}

/// Something that only later versions can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotBuilt {
    /// How the job wants to train: `in bf16`, `with 2 tensor-parallel ranks`.
    pub how: String,
    /// The recipe's key that asks for it.
    pub key: &'static str,
    /// What to set.
    pub help: &'static str,
}

impl fmt::Display for NotBuilt {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "training {} is not built: {}", self.how, self.help)
    }
}

/// Refuses what only later versions can do.
pub fn check_is_built(job: &TrainJob) -> Result<(), Error> {
    match not_built(job).into_iter().next() {
        Some(found) => Err(Error::NotBuilt(found)),
        None => Ok(()),
    }
}

/// Everything that `job` asks for and only later versions can do.
pub fn not_built(job: &TrainJob) -> Vec<NotBuilt> {
    let Degrees { pipeline, virtual_pipeline: chunks, .. } = job.trainer.degrees;
    let layers = job.model.architecture.num_layers;
    let uneven = !layers.is_multiple_of(pipeline * chunks) || (chunks > 1 && pipeline == 1);
    let split = uneven.then(|| NotBuilt {
        how: format!("of {layers} layers on {pipeline} × {chunks} unequal parts of a pipeline"),
        key: "model.pipeline_model_parallel_size",
        help: "choose a model.pipeline_model_parallel_size that divides the layers",
    });
    split.into_iter().collect()
}

pub(super) fn io_error(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { path, source }
}
