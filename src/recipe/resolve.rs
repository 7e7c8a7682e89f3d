//! A recipe file and a command line to resolved values: the language from end to end.

use super::interpolate::interpolate;
use super::overrides;
use super::path::Path;
use super::place::{Place, SourceFile, SourceMap};
use super::problem::{self, Problem};
use super::source;
use super::tree::Node;
use serde_yaml::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a recipe is resolved from. Nothing else is read: no clock, no environment.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The recipe file.
    pub path: &'a std::path::Path,
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
    let composed = compose(request)?;
    let interpolated = interpolate(&composed.tree, request.environment);
    let mut problems = interpolated.problems;
    problems.extend(missing(&interpolated.missing));
    if !problems.is_empty() {
        return Err(sorted(problems, &composed.files));
    }
    let tree = interpolated.tree;
    Ok(Resolved { values: tree.to_value(), marks: tree.marks(), files: composed.files })
}

/// A recipe with everything applied except its interpolations.
pub(crate) struct Composed {
    pub(crate) tree: Node,
    pub(crate) files: Vec<Arc<SourceFile>>,
}

/// Reads, renders and overrides a recipe.
pub(crate) fn compose(request: &Request) -> Result<Composed, Vec<Problem>> {
    let source = source::load(request.path)?;
    let (mut tree, mut files) = (source.tree, vec![source.file]);
    let mut problems = Vec::new();
    if !request.variables.is_empty() {
        let message = "--var is not read yet";
        problems.push(Problem::error("recipe::unsupported", message));
    }
    if let Some(json) = request.hparams {
        problems.extend(overrides::apply_hparams(&mut tree, json));
    }
    problems.extend(overrides::apply_all(&mut tree, request.overrides, &mut files));
    if problems.is_empty() { Ok(Composed { tree, files }) } else { Err(sorted(problems, &files)) }
}

/// Problems in the order of the files as they were read; those of the command line come last.
pub(crate) fn sorted(mut problems: Vec<Problem>, files: &[Arc<SourceFile>]) -> Vec<Problem> {
    problem::sort(&mut problems);
    problems.sort_by_key(|problem| {
        let file = problem.place.as_ref().map(|(place, _)| &place.file);
        file.map(|file| {
            files.iter().position(|known| known.name == file.name).unwrap_or(files.len())
        })
    });
    problems
}

/// One problem for all values that somebody must set.
fn missing(missing: &[(Path, Option<Place>)]) -> Option<Problem> {
    let (first, place) = missing.first()?;
    let named = |(path, place): &(Path, Option<Place>)| match place {
        Some(place) => format!("{path} (line {})", place.line_and_column().0),
        None => path.to_string(),
    };
    let names: Vec<_> = missing.iter().map(named).collect();
    let count = match names.len() {
        1 => "1 required value is missing".to_owned(),
        count => format!("{count} required values are missing"),
    };
    let mut problem =
        Problem::error("recipe::missing_value", format!("{count}: {}", names.join(", ")))
            .about(first.clone())
            .at(place.as_ref(), "`???` must be set")
            .help(format!("set it in the recipe, or on the command line: {first}=VALUE"));
    for (_, place) in missing.iter().skip(1) {
        problem = problem.with(place.as_ref(), "and this");
    }
    Some(problem)
}
