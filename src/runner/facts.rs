//! Looks up what planning must know of the outside.

use super::Error;
use crate::artifacts::Store;
use crate::plan::{Facts, Missing, Wanted};
use crate::spec::job::Job;
use crate::stages;
use std::collections::BTreeMap;
use std::path::Path;

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
    Ok(Facts { digests, vocab_size, gpus, built_for_gpus, refusals, input, ..Facts::default() })
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
