//! A checked recipe to a sealed plan: stages in order, each with its fingerprint.

pub mod draft;
pub mod draw;
pub mod fingerprint;
pub mod graph;
pub mod header;
pub mod stage;

pub use draft::Draft;
pub use header::Header;
pub use stage::{Backend, Missing, Source, Stage};

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
    header: Option<Header>,
    run_folder: PathBuf,
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

    /// Layout, size and length of the training, when the recipe trains.
    pub fn header(&self) -> Option<&Header> {
        self.header.as_ref()
    }

    /// Where people find what the run made, as `exp_manager` names it; relative paths are relative
    /// to the folder in which the program was started.
    pub fn run_folder(&self) -> &Path {
        &self.run_folder
    }
}
