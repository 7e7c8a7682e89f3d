//! Looks up what planning must know of the outside.

use super::Error;
use crate::artifacts::Store;
use crate::plan::{Facts, Missing, Wanted};
use crate::spec::job::Job;
use crate::stages;
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

/// The facts that planning a recipe needs: hashes of its files, the size of its vocabulary.
///
/// GPUs are counted only when the recipe asks for some. Files that do not exist are left out; the plan
/// then lists them as missing.
pub fn facts(wanted: &Wanted, store: &Store) -> Result<Facts, Error> {
    let mut digests = BTreeMap::new();
    for path in wanted.files.iter().filter(|path| path.exists()) {
        let digest =
            store.digest(path).map_err(|error| Error::Input { path: path.clone(), error })?;
        digests.insert(path.clone(), digest);
    }
    store.save()?;
    let missing = wanted.files.iter().filter(|path| !digests.contains_key(*path));
    let elsewhere =
        missing.filter_map(|path| Some((path.clone(), from_here(&wanted.folder, path)?))).collect();
    let there =
        |(_, files): &&(_, BTreeMap<_, _>)| files.values().all(|path| digests.contains_key(path));
    let vocab_size = match wanted.tokenizer.as_ref().filter(there) {
        Some((kind, files)) => Some({
            let size = stages::vocab_size(*kind, files);
            size.map_err(|error| Error::Tokenizer(Box::new(error)))?
        }),
        None => None,
    };
    let gpus = if wanted.gpus { stages::devices::usable_gpus() } else { 0 };
    let built_for_gpus = stages::devices::built_for_gpus();
    let (refusals, input) = (Some(refusals as _), Some(input as _));
    Ok(Facts {
        digests,
        elsewhere,
        vocab_size,
        gpus,
        built_for_gpus,
        refusals,
        input,
        ..Facts::default()
    })
}

/// What a recipe in `folder` has to write for the file that its `path` means in the current folder,
/// if there is one.
fn from_here(folder: &Path, path: &Path) -> Option<PathBuf> {
    let written = path.strip_prefix(folder).ok().filter(|written| written.exists())?;
    let is_plain = |part| matches!(part, Component::Normal(_));
    if folder.components().all(is_plain) {
        let up: PathBuf = folder.components().map(|_| Component::ParentDir).collect();
        return Some(up.join(written));
    }
    std::path::absolute(written).ok()
}

/// What of a job the stages of this build cannot do.
fn refusals(job: &Job) -> Vec<Missing> {
    stages::refusals(job).into_iter().map(missing).collect()
}

/// Why a stage cannot use its input `name` at `path`.
fn input(job: &Job, name: &str, path: &Path) -> Option<Missing> {
    stages::input_refusal(job, name, path).map(missing)
}

fn missing(refusal: stages::Refusal) -> Missing {
    Missing { what: refusal.what, key: refusal.key, help: refusal.help }
}
