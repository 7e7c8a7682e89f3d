//! A run's checkpoints: every rank writes its pieces, the first one makes a checkpoint of them.

use super::step::Trainer;
use super::training::{CHECKPOINT_FOLDER, Error, io_error};
use crate::checkpoint::manifest::{Header, Kind};
use crate::checkpoint::native;
use crate::checkpoint::piecewise::{self, Owned};
use crate::checkpoint::reshard::{model_file, optimizer_file};
use crate::checkpoint::writer::{Draft, Written};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Folder of the checkpoints that an interrupted run goes on from.
pub const RESUME_FOLDER: &str = "resume";

/// Files that ranks have written, by rank.
pub type Files = Mutex<Vec<(usize, Written)>>;

/// Writes checkpoint `target` together with all other ranks, of which each calls this; the first one
/// gives the header.
pub fn save(
    trainer: &Trainer,
    target: &Path,
    header: Option<Header>,
    files: &Files,
) -> Result<(), Error> {
    let mesh = &trainer.mesh;
    let draft = match header {
        Some(header) => Some((Draft::begin(target)?, header)),
        None => None,
    };
    mesh.world.barrier()?;
    let written = pieces(trainer, &Draft::folder_for(target))?;
    let entries = written.into_iter().map(|written| (mesh.rank, written));
    files.lock().unwrap_or_else(PoisonError::into_inner).extend(entries);
    mesh.world.barrier()?;
    if let Some((draft, header)) = draft {
        let mut all = std::mem::take(&mut *files.lock().unwrap_or_else(PoisonError::into_inner));
        all.sort_by_key(|(rank, _)| *rank);
        draft.commit(header, all.into_iter().map(|(_, written)| written).collect())?;
    }
    // Nobody goes on before the checkpoint has its name: the next one may take the place of this.
    Ok(mesh.world.barrier()?)
}

/// This rank's files.
fn pieces(trainer: &Trainer, folder: &Path) -> Result<Vec<Written>, native::Error> {
    let Trainer { mesh, model, optimizer, .. } = trainer;
    let (weights, owned) = (model.weights(), optimizer.owned());
    let everything = 0..weights.holding().length();
    let all = [everything];
    // Replicas that have the same write once; each writes what only it has.
    let is_shared = owned == all;
    let (first, writes_own) = (mesh.at.data == 0, mesh.at.data == 0 || !is_shared);
    let of = |kind, values, ranges| Owned { kind, values, ranges };
    let parameters = match optimizer.masters() {
        Some(masters) => writes_own.then(|| of(Kind::Weight, masters, owned)),
        None => first.then(|| of(Kind::Weight, weights.values(), &all[..])),
    };
    let [first_moment, second_moment] = optimizer.moments();
    let moments =
        [of(Kind::FirstMoment, first_moment, owned), of(Kind::SecondMoment, second_moment, owned)];
    let moments = if writes_own { &moments[..] } else { &[] };
    let write = |name: String, owned: &[Owned<'_>]| {
        piecewise::write(folder, &name, weights.holding(), owned)
    };
    let model = write(model_file(mesh.rank), parameters.as_slice())?;
    Ok(model.into_iter().chain(write(optimizer_file(mesh.rank), moments)?).collect())
}

/// The checkpoint of this output folder that is furthest on.
pub fn newest_checkpoint(output: &Path) -> Result<Option<PathBuf>, Error> {
    let finished = output.join(CHECKPOINT_FOLDER);
    if finished.exists() {
        return Ok(Some(finished));
    }
    Ok(checkpoints(&output.join(RESUME_FOLDER))?.pop())
}

/// Whole checkpoints in `folder`, by step.
pub fn checkpoints(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for entry in folder.read_dir().map_err(io_error(folder))? {
        let path = entry.map_err(io_error(folder))?.path();
        // A folder still being written is called `step-N.partial`.
        if path.extension().is_none() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
