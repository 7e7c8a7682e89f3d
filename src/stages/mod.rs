//! One file per stage kind: input folders in, one output folder out.

pub mod bench;
mod choices;
pub mod compare;
mod conversation;
pub mod convert;
pub mod devices;
pub mod evaluate;
mod evaluation;
pub mod generate;
pub mod inspect;
mod held_out;
mod inspect_foreign;
pub mod load;
pub mod nodes;
pub mod preview;
pub mod shard;
pub mod tokenize;
pub mod train;
mod watch;

pub use tokenize::{TrainRequest, TrainText};

use crate::checkpoint::opened::Opened;
use crate::engine::saving;
use crate::engine::team::{self, Spread, Team};
use crate::engine::training::CHECKPOINT_FOLDER;
use crate::model::formats::Formats;
use crate::spec::backend::Backend;
use crate::spec::event::Sink;
use crate::spec::fault::Fault;
use crate::spec::job::{Job, RESUME_FOLDER, TokenizerKind};
use devices::Devices;
use nodes::Nodes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Where a stage reads and writes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Folders {
    /// Files and folders by the names that [`Job`] gives them (`data`, `model`, `rows.0`).
    pub inputs: BTreeMap<String, PathBuf>,
    /// What stages that compute compute on.
    pub backend: Backend,
    /// The output folder, which exists; for training it may hold the partial work of an
    /// interrupted run of the same fingerprint, else it is empty.
    pub output: PathBuf,
}

impl Folders {
    /// The input called `name`.
    pub fn input(&self, name: &str) -> Result<&Path, Error> {
        let path = self.inputs.get(name).ok_or_else(|| Error::MissingInput(name.to_owned()))?;
        Ok(path)
    }
}

/// What a finished stage reports.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// Numbers to show, by name.
    pub facts: BTreeMap<String, f64>,
}

/// Why a stage did not finish.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The runner did not hand in an input that the stage reads.
    #[error("input `{0}` is missing: name a stage or a file for it in the recipe")]
    MissingInput(String),
    /// The stop flag was set; what is in the output folder can be continued.
    #[error("stopped after {0}")]
    Stopped(String),
    /// tokenize failed.
    #[error(transparent)]
    Tokenize(#[from] tokenize::Error),
    /// shard failed.
    #[error(transparent)]
    Shard(#[from] shard::Error),
    /// load failed.
    #[error(transparent)]
    Load(#[from] load::Error),
    /// train failed.
    #[error(transparent)]
    Train(#[from] train::Error),
    /// evaluate failed.
    #[error(transparent)]
    Evaluate(#[from] evaluate::Error),
    /// generate failed.
    #[error(transparent)]
    Generate(#[from] generate::Error),
    /// The nodes of the run do not work together.
    #[error(transparent)]
    Nodes(#[from] nodes::Error),
}

impl Error {
    /// Whether it may well not happen again: a node was lost, or a rank panicked.
    pub fn is_accident(&self) -> bool {
        match self {
            Error::Train(train::Error::Training(error)) => error.is_accident(),
            Error::Evaluate(evaluate::Error::Evaluation(error)) => error.is_accident(),
            Error::Generate(generate::Error::Generate(error)) => error.is_accident(),
            Error::Nodes(nodes::Error::Ended(failure)) => failure.is_accident,
            _ => false,
        }
    }
}

/// Runs one stage to its end, or to the next safe point after `stop` was set.
pub fn run(
    job: &Job,
    folders: &Folders,
    sink: &dyn Sink,
    stop: &AtomicBool,
) -> Result<Outcome, Error> {
    run_under(job, folders, (sink, stop), &Circumstances::default())
}

/// What a stage runs under, beside its job: nothing that changes its output.
#[derive(Clone, Debug, Default)]
pub struct Circumstances {
    /// Where a rank of a training is to fail.
    pub fault: Option<Fault>,
    /// The nodes of the run, where there are several; see [`nodes`].
    pub nodes: Option<Arc<Nodes>>,
}

/// [`run`] under `circumstances`: stages that compute take all nodes, another stage node 0 alone.
pub fn run_under(
    job: &Job,
    folders: &Folders,
    (sink, stop): (&dyn Sink, &AtomicBool),
    circumstances: &Circumstances,
) -> Result<Outcome, Error> {
    let (folders, circumstances) = nodes::order(job, folders, circumstances)?;
    run_part(job, &folders, (sink, stop), &circumstances)
}

/// What this node does of a stage; all of it, but where the circumstances have nodes.
fn run_part(
    job: &Job,
    folders: &Folders,
    (sink, stop): (&dyn Sink, &AtomicBool),
    circumstances: &Circumstances,
) -> Result<Outcome, Error> {
    let nodes = circumstances.nodes.as_ref();
    match job {
        Job::Tokenize(job) => tokenize::run(job, folders, sink, stop),
        Job::Shard(job) => shard::run(job, folders, sink, stop),
        Job::Load(job) => load::run(job, folders, sink, stop),
        Job::Train(job) => train::run(job, folders, (sink, stop), circumstances),
        Job::Evaluate(job) => evaluate::run(job, folders, (sink, stop), nodes),
        Job::Generate(job) => generate::run(job, folders, (sink, stop), nodes),
    }
}

/// Something that a job asks for and this build cannot do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What, a lowercase fragment.
    pub what: String,
    /// The recipe's key that asks for it.
    pub key: String,
    /// What to set.
    pub help: String,
}

/// Everything in `job` that this build cannot do, so that a run can be refused before any work.
pub fn refusals(job: &Job) -> Vec<Refusal> {
    match job {
        Job::Train(job) => train::refusals(job),
        _ => Vec::new(),
    }
}

/// The model in the checkpoint at `path`, over `devices` of `nodes`.
fn team(path: &Path, devices: Devices, nodes: Option<&Arc<Nodes>>) -> Result<Team, team::Error> {
    Team::open(path, Spread { nodes: nodes.cloned(), ..spread(devices) })
}

/// The same of an opened checkpoint, over devices of this node.
fn team_of(opened: &Opened, devices: Devices) -> Result<Team, team::Error> {
    Team::of(opened, spread(devices))
}

fn spread(Devices { trainer, backend }: Devices) -> Spread {
    let formats = Formats::of(trainer.precision, true);
    Spread { degrees: trainer.degrees, formats, backend, nodes: None }
}

/// Why the stage cannot use its input `name`, which lies at `path`, if it cannot: a checkpoint to
/// load or to continue from, rows of multiple choice, prompts, a metric's lexicon or classifier. Of
/// checkpoints only headers are read, of rows the first ones, of classifiers all but the weights.
pub fn input_refusal(job: &Job, name: &str, path: &Path) -> Option<Refusal> {
    match (job, name) {
        (Job::Load(job), "checkpoint") => load::refusal(job, path),
        (Job::Train(job), "resume") => train::refusal(job, path),
        (Job::Train(job), _) => {
            let (name, validate) = (name.strip_prefix("validate.")?, job.stage.validate.as_ref()?);
            evaluation::metric_refusal(&validate.metrics, name, path)
        }
        (Job::Evaluate(job), "choices") => choices::refusal(job.stage.choices.as_ref()?, path),
        (Job::Evaluate(job), _) => evaluation::metric_refusal(&job.stage.metrics, name, path),
        (Job::Generate(_), "prompts") => generate::refusal(path),
        _ => None,
    }
}

/// Whether an unfinished training in the folder `output` has a checkpoint to go on from.
pub fn can_go_on(output: &Path) -> bool {
    let saved = saving::checkpoints(&output.join(RESUME_FOLDER));
    output.join(CHECKPOINT_FOLDER).exists() || saved.is_ok_and(|saved| !saved.is_empty())
}

/// Whether a checkpoint of any program lies at `path`.
pub fn is_checkpoint(path: &Path) -> bool {
    crate::checkpoint::format::detect(path).is_some()
}

/// Number of ids that a tokenizer can produce: a fact that planning needs.
///
/// `files` are named as [`Job`] names them (`tokenizer.model`, `tokenizer.vocab_file`, …).
pub fn vocab_size(kind: TokenizerKind, files: &BTreeMap<String, PathBuf>) -> Result<usize, Error> {
    Ok(tokenize::vocab_size(kind, files)?)
}

/// Trains a byte-level BPE tokenizer on texts and writes it to `output`, a `tokenizer.json`; returns
/// its number of ids.
pub fn train_tokenizer(request: &TrainRequest, output: &Path) -> Result<usize, Error> {
    Ok(tokenize::train_tokenizer(request, output)?)
}
