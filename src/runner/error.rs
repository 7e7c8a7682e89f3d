//! Why a run ended before its end.

use super::Settings;
use crate::artifacts;
use crate::plan::{Missing, Stage};
use crate::stages;
use std::io;
use std::path::{Path, PathBuf};

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
    /// A node was lost or a rank panicked in the middle of a stage: the same command may do better.
    #[error("stage `{stage}` failed: {error}")]
    BrokenOff {
        /// The stage.
        stage: String,
        /// What happened.
        #[source]
        error: Box<stages::Error>,
        /// Whether its work is kept and continued.
        resumable: bool,
    },
    /// The run was asked to stop.
    #[error("stopped in stage `{stage}`: {}", next(*.resumable))]
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

impl Error {
    /// What becomes of a run whose `stage` ended with `error`; its work lies in `output`, and the
    /// same command goes on with it or does not.
    pub(super) fn of_stage(
        settings: &Settings<'_>,
        (stage, output, goes_on): (&Stage, &Path, bool),
        error: stages::Error,
    ) -> Error {
        let name = stage.name.clone();
        if matches!(error, stages::Error::Stopped(_)) {
            return Error::Stopped { stage: name, resumable: goes_on };
        }
        let is_accident = settings.store_stays && error.is_accident();
        let error = Box::new(error);
        if !is_accident {
            return Error::Failed { stage: name, error };
        }
        let resumable = goes_on && stages::can_go_on(output);
        Error::BrokenOff { stage: name, error, resumable }
    }

    /// What to do about it, where its text does not say so.
    pub fn help(&self) -> Option<&'static str> {
        match self {
            Error::BrokenOff { resumable: true, .. } => {
                Some("start the same command again to continue it; report a panic that comes again")
            }
            Error::BrokenOff { resumable: false, .. } => {
                Some("start the same command again to run it anew; report a panic that comes again")
            }
            _ => None,
        }
    }
}

fn next(resumable: bool) -> &'static str {
    if resumable {
        "start the same command again to continue it"
    } else {
        "start the same command again to run it anew"
    }
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
