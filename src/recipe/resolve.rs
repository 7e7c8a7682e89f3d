//! A recipe file and a command line to resolved values: the language from end to end.

use super::place::{SourceFile, SourceMap};
use super::problem::Problem;
use super::source;
use serde_yaml::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// What a recipe is resolved from. Nothing else is read: no clock, no environment.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The recipe file.
    pub path: &'a Path,
    /// `KEY=VALUE` in Hydra's grammar, applied from left to right.
    pub overrides: &'a [String],
    /// `--var NAME=VALUE`, split.
    pub variables: &'a [(String, String)],
    /// The environment: what `${oc.env:X}` and `${{ env.X }}` see.
    pub environment: &'a BTreeMap<String, String>,
    /// trlx's JSON object of dotted keys, applied before the overrides.
    pub hparams: Option<&'a str>,
    /// The state of the git checkout around the recipe, when there is one.
    pub git: Option<&'a Git>,
    /// The GPUs of this machine, when somebody looked.
    pub gpu: Option<&'a Gpus>,
}

/// A git checkout: `${{ git.commit }}` and so on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Git {
    /// The full hash of the commit.
    pub commit: String,
    /// The branch, when one is checked out.
    pub branch: Option<String>,
    /// Whether files differ from the commit.
    pub dirty: bool,
}

/// The GPUs of a machine: `${{ gpu.count }}` and so on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gpus {
    /// How many there are.
    pub count: usize,
    /// The name of the first one.
    pub name: Option<String>,
    /// The memory of the first one in bytes.
    pub memory: Option<u64>,
}

/// A recipe after all steps of the language.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The values; a mapping, in the order of the file.
    pub values: Value,
    /// Where each of them was written.
    pub marks: SourceMap,
    /// Every file that was read, the recipe first.
    pub files: Vec<Arc<SourceFile>>,
}

/// Reads, renders, overrides and resolves a recipe.
pub fn resolve(request: &Request) -> Result<Resolved, Vec<Problem>> {
    let source = source::load(request.path)?;
    if !request.overrides.is_empty() || request.hparams.is_some() || !request.variables.is_empty() {
        let message = "overrides, --hparams and --var are not read yet";
        return Err(vec![Problem::error("recipe::unsupported", message)]);
    }
    let values = source.tree.to_value();
    Ok(Resolved { values, marks: source.tree.marks(), files: vec![source.file] })
}
