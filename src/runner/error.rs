//! Why a run ended before its end.

use crate::artifacts;
use crate::plan::Missing;
use crate::stages;
use std::io;
use std::path::PathBuf;

/// Why a run ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The plan names things that are not there; nothing was begun.
    #[error("{}", list(.0))]
    Missing(Vec<Missing>),
    /// A file that the recipe names cannot be read.
    #[error("cannot read `{}`: {error}", path.display())]
    Input {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        error: io::Error,
    },
    /// The tokenizer's files are there and cannot be used.
    #[error("cannot use the tokenizer of the recipe (`model.tokenizer`): {0}")]
    Tokenizer(#[source] Box<stages::Error>),
    /// An option names a stage that the plan does not have.
    #[error("{option} names `{name}`, which is not a stage: {help}")]
    UnknownStage {
        /// The option.
        option: &'static str,
        /// What it says.
        name: String,
        /// Which stages there are, and which one may be meant.
        help: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] artifacts::Error),
    /// A stage failed.
    #[error("stage `{stage}` failed: {error}")]
    Failed {
        /// The stage.
        stage: String,
        /// Its error.
        #[source]
        error: Box<stages::Error>,
    },
    /// The run was asked to stop.
    #[error("stopped in stage `{stage}`: {}", if *.resumable {
        "start the same command again to continue it"
    } else {
        "start the same command again to run it anew"
    })]
    Stopped {
        /// The stage that was running or about to run.
        stage: String,
        /// Whether its work is kept and continued.
        resumable: bool,
    },
    /// An input was changed by someone while a stage read it.
    #[error("input `{input}` of stage `{stage}` changed while the stage ran (`{}`): run again", path.display())]
    InputChanged {
        /// The stage.
        stage: String,
        /// The input.
        input: String,
        /// The file.
        path: PathBuf,
    },
    /// The checkpoint could not be put into the run folder.
    #[error("cannot put the checkpoint of `{stage}` into `{}`: {error}", folder.display())]
    Publish {
        /// The train stage.
        stage: String,
        /// The folder.
        folder: PathBuf,
        /// What the system said.
        #[source]
        error: io::Error,
    },
}

fn list(missing: &[Missing]) -> String {
    let s = if missing.len() == 1 { "" } else { "s" };
    let lines: Vec<_> = missing.iter().map(|one| format!("\n  - {one}")).collect();
    format!(
        "{} thing{s} this run needs {} missing, nothing was done:{}",
        missing.len(),
        if s.is_empty() { "is" } else { "are" },
        lines.concat()
    )
}
