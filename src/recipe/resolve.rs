//! A recipe file and a command line to resolved values: the language from end to end.

use super::interpolate::interpolate;
use super::path::Path;
use super::place::{Place, SourceFile, SourceMap};
use super::problem::{self, Problem};
use super::source;
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
    let source = source::load(request.path)?;
    if !request.overrides.is_empty() || request.hparams.is_some() || !request.variables.is_empty() {
        let message = "overrides, --hparams and --var are not read yet";
        return Err(vec![Problem::error("recipe::unsupported", message)]);
    }
    let interpolated = interpolate(&source.tree, request.environment);
    let mut problems = interpolated.problems;
    problems.extend(missing(&interpolated.missing));
    if !problems.is_empty() {
        problem::sort(&mut problems);
        return Err(problems);
    }
    let tree = interpolated.tree;
    Ok(Resolved { values: tree.to_value(), marks: tree.marks(), files: vec![source.file] })
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
