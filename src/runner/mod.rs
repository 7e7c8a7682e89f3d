//! Walks a plan: reuse or run, commit, report every decision as an event.

mod decide;
mod error;
mod facts;
mod preview;
mod publish;
mod reason;
mod scope;
mod walk;

pub use decide::{Decision, Previous};
pub use error::Error;
pub use facts::facts;
pub use preview::{Preview, StagePreview, preview};
pub use reason::{Change, InputState, Reason, differences};
pub use scope::sources;
pub use walk::{Done, Execute, Report, run};

use crate::artifacts::Store;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// How to walk a plan.
#[derive(Clone, Debug)]
pub struct Settings<'a> {
    /// Where outputs are kept.
    pub store: &'a Store,
    /// The lock file.
    pub lock: &'a Path,
    /// Where the run takes place, for the lock file: program version, machine, devices.
    pub environment: BTreeMap<String, String>,
    /// What other processes are told about this one, such as `process 4711: sft-run a.yaml`.
    pub holder: String,
    /// Run every stage, and start interrupted work over.
    pub no_cache: bool,
    /// Stages that run even when their output is in the cache.
    pub force: BTreeSet<String>,
    /// Force this stage and all that read from it, directly or not.
    pub from: Option<String>,
    /// Leave out every stage that this one does not need.
    pub to: Option<String>,
    /// Leave the lock file as it is: what runs is not the recipe as it stands in its file.
    pub keep_lock: bool,
    /// Where checkpoints of train stages are put for people (`checkpoints/STAGE`); none leaves
    /// them in the cache.
    pub run_folder: Option<&'a Path>,
    /// Whether the next run of the same command finds what this one leaves in the store.
    pub store_stays: bool,
}

impl<'a> Settings<'a> {
    /// An ordinary run.
    pub fn new(store: &'a Store, lock: &'a Path) -> Settings<'a> {
        Settings {
            store,
            lock,
            environment: BTreeMap::new(),
            holder: format!("process {}", std::process::id()),
            no_cache: false,
            force: BTreeSet::new(),
            from: None,
            to: None,
            keep_lock: false,
            run_folder: None,
            store_stays: true,
        }
    }
}
