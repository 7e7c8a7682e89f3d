//! Why a checkpoint cannot be written or read.

use super::format::Format;
use std::io;
use std::path::{Path, PathBuf};

/// Why a checkpoint cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Another program's checkpoint.
    #[error(
        "{path} is {format}, and a checkpoint of sft-run is needed here: load it in a load stage, \
         or make one of it with `sft-run convert {path} NEW --to native`"
    )]
    Foreign {
        /// Where.
        path: PathBuf,
        /// What it is.
        format: Format,
    },
    /// Nothing that looks like a checkpoint.
    #[error("{path} is not a checkpoint of sft-run, Hugging Face, NeMo, Megatron-LM or GGUF")]
    NotACheckpoint {
        /// Where.
        path: PathBuf,
    },
    /// A checkpoint that is damaged, of another version or of another model.
    #[error("checkpoint {path} cannot be used: {reason}")]
    Unusable {
        /// Where.
        path: PathBuf,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// The tensors cannot be handled.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

impl Error {
    /// [`Error::Unusable`].
    pub fn unusable(path: &Path, reason: impl Into<String>) -> Error {
        Error::Unusable { path: path.to_owned(), reason: reason.into() }
    }

    /// Adds to a system error what was tried and where.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        let path = path.to_owned();
        move |source| Error::Io { action, path, source }
    }
}
