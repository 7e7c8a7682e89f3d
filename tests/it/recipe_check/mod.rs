//! Shipped recipes, bad recipes with their rendered errors, the schemas, the status of every key.

mod bad;
mod keys;
mod lints;
mod nemo;
mod schema;
mod shipped;

use sft_run::recipe::problem::Problem;
use sft_run::recipe::{CheckedRecipe, Request, load};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A file of the repository.
fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// The names of the YAML files of a folder, in order.
fn yaml_files(folder: &str) -> Vec<String> {
    let entries = std::fs::read_dir(file(folder)).expect("readable folder");
    let names =
        entries.map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> =
        names.filter(|name| Path::new(name).extension().is_some_and(|end| end == "yaml")).collect();
    names.sort();
    names
}

/// Loads a recipe with overrides.
pub(crate) fn load_with(
    path: &Path,
    overrides: &[&str],
) -> Result<(CheckedRecipe, Vec<Problem>), Vec<Problem>> {
    let overrides: Vec<String> = overrides.iter().map(|text| (*text).to_owned()).collect();
    load(&Request {
        path,
        overrides: &overrides,
        variables: &[],
        environment: &BTreeMap::new(),
        hparams: None,
        git: None,
        gpu: None,
    })
}
