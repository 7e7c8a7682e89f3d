//! The way in for runs over several nodes: node 0 walks the plan, the others take part in stages that
//! compute.
//!
//! Node 0 alone decides what runs, holds the cache's locks and writes what is kept. For a training, an
//! evaluation or a generation it tells the others the job and the folders, which must lie on a file
//! system that all share.

use super::{Circumstances, Folders, run_part};
use crate::parallel::nodes::in_words;
pub use crate::parallel::nodes::rendezvous::{self, Meeting};
pub use crate::parallel::nodes::{NodeFailure, Nodes, Place};
use crate::spec::event::Silent;
use crate::spec::fault::Fault;
use crate::spec::job::Job;
use crate::spec::optimization::Degrees;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// Why nodes do not work together.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another node ended the run.
    #[error(transparent)]
    Ended(#[from] NodeFailure),
    /// A folder of node 0 is not there.
    #[error(
        "`{}`, which node 0 uses, is not there on this node: the cache and the recipe's files must \
         lie on a file system that all nodes share (`--cache-dir`, SFT_RUN_CACHE)",
        path.display()
    )]
    NotShared {
        /// The folder or file.
        path: PathBuf,
    },
    /// A path cannot be made absolute.
    #[error("cannot find out where `{}` lies", path.display())]
    Path {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// An order that cannot be written or read.
    #[error("nodes do not understand each other")]
    Order(#[from] serde_json::Error),
}

/// What node 0 says of a stage.
#[derive(Debug, Serialize, Deserialize)]
struct Order {
    job: Job,
    folders: Folders,
    fault: Option<Fault>,
}

const ORDER: &str = "order";

/// Calls the other nodes to `job`, a stage that computes; gives the folders as all of them name them. A
/// stage of one node's ranks stays node 0's own.
pub(super) fn order(
    job: &Job,
    folders: &Folders,
    circumstances: &Circumstances,
) -> Result<(Folders, Circumstances), super::Error> {
    let Circumstances { fault, nodes } = circumstances.clone();
    let ranks = job.degrees().map(Degrees::world_size);
    let Some(nodes) = nodes.filter(|nodes| ranks == Some(nodes.place().world_size())) else {
        return Ok((folders.clone(), Circumstances { fault, nodes: None }));
    };
    let folders = absolute(folders)?;
    if nodes.leads() {
        let order = Order { job: job.clone(), folders: folders.clone(), fault };
        nodes.post_all(ORDER, serde_json::to_vec(&order).map_err(Error::from)?);
    }
    Ok((folders, Circumstances { fault, nodes: Some(nodes) }))
}

fn absolute(folders: &Folders) -> Result<Folders, Error> {
    let absolute = |path: &Path| {
        std::path::absolute(path).map_err(|source| Error::Path { path: path.to_owned(), source })
    };
    let input = |(name, path): (&String, &PathBuf)| Ok((name.clone(), absolute(path)?));
    Ok(Folders {
        inputs: folders.inputs.iter().map(input).collect::<Result<_, Error>>()?,
        backend: folders.backend,
        output: absolute(&folders.output)?,
    })
}

/// Takes part in every stage that node 0 calls to, until it leaves; `tell` hears of each.
pub fn follow(
    circumstances: &Circumstances,
    tell: &dyn Fn(&str),
    stop: &AtomicBool,
) -> Result<(), super::Error> {
    let Some(nodes) = &circumstances.nodes else { return Ok(()) };
    while let Some(order) = nodes.fetch_unless(0, ORDER, stop).map_err(Error::from)? {
        let Order { job, folders, fault } = serde_json::from_slice(&order).map_err(Error::from)?;
        let mut paths = folders.inputs.values().chain([&folders.output]);
        if let Some(path) = paths.find(|path| !path.exists()) {
            return Err(Error::NotShared { path: path.clone() }.into());
        }
        let (ranks, world) = (nodes.place().ranks(), nodes.place().world_size());
        let [doing, done] = match job {
            Job::Evaluate(_) => ["evaluating", "evaluated"],
            Job::Generate(_) => ["generating", "generated"],
            _ => ["training", "trained"],
        };
        tell(&format!("{doing}: {} of {world}", in_words(&ranks)));
        let circumstances = Circumstances { fault, nodes: Some(nodes.clone()) };
        run_part(&job, &folders, (&Silent, stop), &circumstances)?;
        tell(done);
    }
    if stop.load(Ordering::Relaxed) {
        return Err(super::Error::Stopped("no work of this node".to_owned()));
    }
    Ok(())
}
