//! A checked recipe to a sealed plan: stages in order, each with its fingerprint.

pub mod around;
mod compile;
mod draft;
pub mod draw;
mod estimate;
pub mod fingerprint;
mod graph;
pub mod header;
mod jobs;
mod lacks;
mod origins;
mod outside;
pub mod schedule;
mod shape;
mod stage;
pub mod suggest;

pub use around::Around;
pub use compile::compile;
pub use draft::Draft;
pub use header::Header;
pub use outside::{Facts, InputRefusal, Wanted, wanted};
pub use stage::{Backend, Missing, Outside, Source, Stage};

use std::path::{Path, PathBuf};

/// What a run will do, sealed: only [`Draft::seal`] makes one, and nothing can change it.
///
/// The stages are in the order in which they run: every stage stands after those it reads from, and
/// otherwise they keep the recipe's order.
#[derive(Clone, Debug)]
pub struct Plan {
    name: String,
    stages: Vec<Stage>,
    missing: Vec<Missing>,
    headers: Vec<Header>,
    run_folder: PathBuf,
    keeps_checkpoints: bool,
    around: Around,
}

impl Plan {
    /// The recipe's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The stages in execution order.
    pub fn stages(&self) -> &[Stage] {
        &self.stages
    }

    /// The stage called `name`.
    pub fn stage(&self, name: &str) -> Option<&Stage> {
        self.stages.iter().find(|stage| stage.name == name)
    }

    /// What a run would lack; while this is not empty, the plan can be shown and not run.
    pub fn missing(&self) -> &[Missing] {
        &self.missing
    }

    /// Layout, size and length of each training.
    pub fn headers(&self) -> &[Header] {
        &self.headers
    }

    /// Where people find what the run made, as `exp_manager` names it; relative paths are relative
    /// to the folder in which the program was started.
    pub fn run_folder(&self) -> &Path {
        &self.run_folder
    }

    /// Whether checkpoints are put into the run folder (`exp_manager.create_checkpoint_callback`).
    pub fn keeps_checkpoints(&self) -> bool {
        self.keeps_checkpoints
    }

    /// What the recipe asks for around its stages.
    pub fn around(&self) -> &Around {
        &self.around
    }
}
