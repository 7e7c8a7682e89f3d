//! A run's checkpoints: every rank copies its pieces, and a thread of the first rank's writes them
//! while training goes on, one checkpoint at a time. Of several nodes each writes the files of its
//! ranks, and node 0 the manifest.

use super::keeping::Placing;
use super::step::Trainer;
use super::training::Error as TrainError;
use crate::base::atomic_file;
use crate::checkpoint::manifest::Kind;
use crate::checkpoint::native::Error;
use crate::checkpoint::piecewise::{self, Owned};
use crate::checkpoint::reshard::{model_file, optimizer_file};
use crate::checkpoint::snapshot::{FileSnapshot, Snapshot};
use crate::checkpoint::writer::{Draft, Written};
use crate::parallel::nodes::Nodes;
use crate::spec::event::{Event, Sink};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Checkpoints for resuming that are kept: one more than the newest, should that be damaged.
const KEPT: usize = 2;

/// Writes checkpoints beside the training.
#[derive(Debug, Default)]
pub struct Saver {
    in_flight: Option<JoinHandle<Result<Option<Event>, Error>>>,
}

/// A checkpoint to be written.
#[derive(Debug)]
pub struct Saving {
    /// The state, with the files of this node's ranks.
    pub snapshot: Snapshot,
    /// The checkpoint's folder; one that stands there is replaced.
    pub target: PathBuf,
    /// When training stopped for it.
    pub began: Instant,
    /// Where it is kept beside, if it is.
    pub keep: Option<Placing>,
    /// The nodes that write it, if there are several.
    pub nodes: Option<Arc<Nodes>>,
}

impl Saver {
    /// Waits for the checkpoint before, if it is not written yet.
    ///
    /// Called before the state is copied, so that at most one copy is in memory.
    pub fn wait(&mut self, sink: &dyn Sink) -> Result<(), Error> {
        match self.in_flight.take() {
            Some(thread) => {
                joined(thread)?.into_iter().for_each(|event| sink.emit(event));
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Tells of the checkpoint in the making, if it is done.
    pub fn poll(&mut self, sink: &dyn Sink) -> Result<(), Error> {
        if self.in_flight.as_ref().is_some_and(JoinHandle::is_finished) {
            return self.wait(sink);
        }
        Ok(())
    }

    /// Begins to write a checkpoint and lets training go on; [`wait`](Saver::wait) comes first.
    ///
    /// When it is whole, only the newest two in its folder are kept.
    pub fn start(&mut self, saving: Saving) {
        let pause = saving.began.elapsed();
        self.in_flight = Some(thread::spawn(move || {
            let event = saving.write(Some(pause))?;
            if event.is_some() {
                let folder = saving.target.parent().unwrap_or(Path::new("."));
                keep_newest(folder).map_err(io_error(folder))?;
            }
            Ok(event)
        }));
    }
}

impl Drop for Saver {
    fn drop(&mut self) {
        if let Some(thread) = self.in_flight.take() {
            // Training has failed of something else; the checkpoint is worth its time all the same.
            let _ = joined(thread);
        }
    }
}

fn joined(thread: JoinHandle<Result<Option<Event>, Error>>) -> Result<Option<Event>, Error> {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

impl Saving {
    /// Writes the checkpoint; training stood still for `pause`, or until it is written. Of several
    /// nodes only node 0 tells of it.
    pub fn write(&self, pause: Option<Duration>) -> Result<Option<Event>, Error> {
        let target = &self.target;
        if let Some(nodes) = self.nodes.as_ref().filter(|nodes| !nodes.leads()) {
            return self.take_part(nodes).map(|()| None);
        }
        if target.exists() {
            atomic_file::remove_folder(target).map_err(io_error(target))?;
        }
        let bytes = match &self.nodes {
            None => self.snapshot.write(target)?,
            Some(nodes) => self.write_with(nodes)?,
        };
        if let Some(placing) = &self.keep {
            placing.carry_out(target).map_err(io_error(target))?;
        }
        let took = self.began.elapsed();
        Ok(Some(Event::Saved {
            step: self.snapshot.header.progress.step,
            pause: pause.unwrap_or(took).as_secs_f64(),
            seconds: took.as_secs_f64(),
            bytes,
        }))
    }

    /// Node 0's part of a checkpoint of several nodes; returns its bytes.
    fn write_with(&self, nodes: &Nodes) -> Result<u64, Error> {
        let draft = Draft::begin(&self.target)?;
        let folder = std::path::absolute(draft.folder()).map_err(io_error(draft.folder()))?;
        let text = serde_json::to_vec(&folder).map_err(|error| unreadable(&self.target, &error))?;
        nodes.post_all(FOLDER, text);
        let mut files = self.snapshot.write_files(&folder)?;
        for node in 1..nodes.place().count {
            let told = nodes.fetch(node, FILES).map_err(|error| ended(&self.target, &error))?;
            let theirs: Vec<Written> =
                serde_json::from_slice(&told).map_err(|error| unreadable(&self.target, &error))?;
            if let Some(file) = theirs.iter().find(|file| !file.is_in(&folder)) {
                return Err(Error::unusable(&self.target, elsewhere(node, file.name(), &folder)));
            }
            files.extend(theirs);
        }
        draft.commit(self.snapshot.header.clone(), files)
    }

    /// Another node's part.
    fn take_part(&self, nodes: &Nodes) -> Result<(), Error> {
        let told = nodes.fetch(0, FOLDER).map_err(|error| ended(&self.target, &error))?;
        let folder: PathBuf =
            serde_json::from_slice(&told).map_err(|error| unreadable(&self.target, &error))?;
        if !folder.is_dir() {
            let reason = elsewhere(nodes.place().node, "the folder of node 0", &folder);
            return Err(Error::unusable(&self.target, reason));
        }
        let files = self.snapshot.write_files(&folder)?;
        let text = serde_json::to_vec(&files).map_err(|error| unreadable(&self.target, &error))?;
        nodes.post(0, FILES, text);
        Ok(())
    }
}

/// What nodes tell each other of a checkpoint: where it is made, what a node has written.
const FOLDER: &str = "checkpoint folder";
const FILES: &str = "checkpoint files";

fn elsewhere(node: usize, what: &str, folder: &Path) -> String {
    format!(
        "node {node} and node 0 do not see the same files ({what} in {}): the cache must lie on a \
         file system that all nodes share (`--cache-dir`, SFT_RUN_CACHE)",
        folder.display()
    )
}

fn ended(target: &Path, failure: &impl std::fmt::Display) -> Error {
    Error::unusable(target, format!("it was given up: {failure}"))
}

fn unreadable(target: &Path, error: &serde_json::Error) -> Error {
    Error::unusable(target, format!("nodes do not understand each other: {error}"))
}

/// Copies of pieces, by rank, on their way to the first one of the node.
pub type Copies = Mutex<Vec<(usize, FileSnapshot)>>;

/// Copies the pieces of all ranks, of which each calls this; the first one of each node gets those
/// of the node.
pub fn collect(
    trainer: &Trainer,
    copies: &Copies,
) -> Result<Option<Vec<FileSnapshot>>, TrainError> {
    let mesh = &trainer.mesh;
    let own = pieces(trainer)?.into_iter().map(|file| (mesh.rank, file));
    copies.lock().unwrap_or_else(PoisonError::into_inner).extend(own);
    mesh.world.barrier()?;
    if !mesh.leads_node() {
        return Ok(None);
    }
    // No rank can copy again before this one has taken part in a step.
    let mut all = std::mem::take(&mut *copies.lock().unwrap_or_else(PoisonError::into_inner));
    all.sort_by_key(|(rank, _)| *rank);
    Ok(Some(all.into_iter().map(|(_, file)| file).collect()))
}

/// What this rank's files will hold.
fn pieces(trainer: &Trainer) -> Result<Vec<FileSnapshot>, Error> {
    let Trainer { mesh, model, optimizer, .. } = trainer;
    let (weights, owned) = (model.weights(), optimizer.owned());
    let everything = 0..weights.holding().length();
    let all = [everything];
    // Replicas that have the same write once; each writes what only it has.
    let is_shared = owned == all;
    let (first, writes_own) = (mesh.at.data == 0, mesh.at.data == 0 || !is_shared);
    let masters = optimizer.masters(weights);
    let parameters = match &masters {
        Some(masters) => writes_own.then(|| Owned::new(Kind::Weight, masters, owned)),
        None => first.then(|| Owned::new(Kind::Weight, weights.values(), &all[..])),
    };
    let [first_moment, second_moment] = optimizer.moments();
    let learned = optimizer.learned();
    let moments = [
        Owned::new(Kind::FirstMoment, first_moment, learned),
        Owned::new(Kind::SecondMoment, second_moment, learned),
    ];
    let moments = if writes_own { &moments[..] } else { &[] };
    let copy = |name, owned: &[Owned<'_>]| piecewise::copy(name, weights.holding(), owned);
    let model = copy(model_file(mesh.rank), parameters.as_slice())?;
    Ok(model.into_iter().chain(copy(optimizer_file(mesh.rank), moments)?).collect())
}

/// Finished checkpoints in `folder`, oldest first; their names order them.
pub fn checkpoints(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    if folder.exists() {
        for entry in folder.read_dir()? {
            let path = entry?.path();
            // A folder still being written has an ending.
            if path.extension().is_none() {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

fn keep_newest(folder: &Path) -> io::Result<()> {
    let mut found = checkpoints(folder)?;
    found.truncate(found.len().saturating_sub(KEPT));
    found.iter().try_for_each(|path| atomic_file::remove_folder(path))
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { action: "write", path, source }
}
