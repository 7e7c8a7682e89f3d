//! The last step from text to a recipe that can be planned: types, rules across fields, lints.

use super::findings::Findings;
use super::path::{Path, Step};
use super::place::Marks;
use super::problem::Problem;
use super::resolve::{Request, Resolved, resolve};
use super::stages::{self, NamedStage};
use super::{keys, lints, plain, rules, schema, spelled_numbers};
use crate::spec::recipe::Recipe;
use std::path::{Path as FilePath, PathBuf};

/// A recipe that keeps all rules. Only [`load`] makes one.
#[derive(Clone, Debug)]
pub struct CheckedRecipe {
    recipe: Recipe,
    resolved: Resolved,
    folder: PathBuf,
    name: String,
    stages: Vec<NamedStage>,
}

impl CheckedRecipe {
    /// The recipe as it stands in the file, overrides and interpolations applied.
    pub fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    /// The values that the recipe was read from, and their places.
    pub fn resolved(&self) -> &Resolved {
        &self.resolved
    }

    /// The recipe's folder; relative paths in the recipe start there.
    pub fn folder(&self) -> &FilePath {
        &self.folder
    }

    /// `name`, or the file's stem.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The stages, written or default, in order.
    pub fn stages(&self) -> &[NamedStage] {
        &self.stages
    }

    /// Where a `trainer` or `model` setting of a stage was written: in the stage's `with`, or in the
    /// recipe's section; none when it is a default.
    pub fn origin(&self, stage: &NamedStage, setting: &Path) -> Option<&Marks> {
        let own = stage.overlay().and_then(|overlay| {
            let steps = overlay.0.into_iter().chain(setting.0.iter().cloned());
            self.resolved.marks.get(&Path(steps.collect()))
        });
        own.or_else(|| self.resolved.marks.get(setting))
    }
}

/// Reads, resolves and checks a recipe. The second part of the answer are lints.
///
/// All problems of a step come at once, in the order of the file: values that do not fit the schema,
/// then settings that are refused or contradict each other.
pub fn load(request: &Request) -> Result<(CheckedRecipe, Vec<Problem>), Vec<Problem>> {
    let resolved = resolve(request)?;
    stop_if_any(mismatches(&resolved), &resolved)?;
    let recipe = typed(&resolved)?;
    let stages = stages::effective(&recipe, &resolved.values)
        .map_err(|error| vec![Problem::error("recipe::wrong_value", error.to_string())])?;
    let mut findings = Findings::new(&resolved.marks);
    rules::check(&recipe, &stages, &mut findings);
    let mut problems = findings.problems;
    // What is refused as a whole needs no further rules.
    let mut refused = keys::refused(&resolved);
    problems.retain(|problem| !refused.iter().any(|other| other.path == problem.path));
    refused.append(&mut problems);
    stop_if_any(refused, &resolved)?;
    let mut findings = Findings::new(&resolved.marks);
    lints::check(&recipe, &stages, &mut findings);
    spelled_numbers::check(&resolved, &mut findings);
    let lints = resolved.explained(findings.problems);
    let folder = request.path.parent().map(FilePath::to_path_buf).unwrap_or_default();
    let stem = request.path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let name = recipe.name.clone().or(stem).unwrap_or_default();
    Ok((CheckedRecipe { recipe, resolved, folder, name, stages }, lints))
}

/// The keys that the recipe sets and that have no effect here.
pub fn no_effect(recipe: &CheckedRecipe) -> Vec<keys::Idle> {
    keys::idle(&recipe.resolved)
}

fn stop_if_any(problems: Vec<Problem>, resolved: &Resolved) -> Result<(), Vec<Problem>> {
    if problems.is_empty() { Ok(()) } else { Err(resolved.explained(problems)) }
}

/// Values that JSON cannot say, and values that do not fit the schema.
fn mismatches(resolved: &Resolved) -> Vec<Problem> {
    let (json, mut problems) = plain::convert(resolved);
    problems.extend(schema::errors::check(&json, &resolved.marks));
    problems
}

fn typed(resolved: &Resolved) -> Result<Recipe, Vec<Problem>> {
    serde_path_to_error::deserialize(&resolved.values).map_err(|error| {
        let path = path_of(error.path());
        let marks = resolved.marks.get(&path);
        let told = error.inner().to_string();
        let told = whole_number(&told).unwrap_or(told);
        // Our own messages say what to do after `; ` (see `spec::recipe::union`).
        let (message, help) = match told.split_once("; ") {
            Some((message, help)) => (message.to_owned(), help.to_owned()),
            None => (told, "`sft-run schema --keys` lists what every key takes".to_owned()),
        };
        let problem = Problem::error("recipe::wrong_value", format!("`{path}`: {message}"))
            .at(marks.and_then(|marks| marks.value.place()), "this value")
            .help(help)
            .about(path);
        vec![problem]
    })
}

/// The words for a number with a point where a whole number belongs: the schema lets `100.0` pass.
fn whole_number(told: &str) -> Option<String> {
    let (number, expected) =
        told.strip_prefix("invalid type: floating point `")?.split_once('`')?;
    let whole = ["expected i", "expected u"].iter().any(|kind| expected.contains(kind));
    let advice = match number.strip_suffix(".0") {
        Some(written) => format!("write {written}"),
        None => "round it".to_owned(),
    };
    whole.then(|| format!("it must be a whole number, not {number}; {advice}"))
}

fn path_of(path: &serde_path_to_error::Path) -> Path {
    use serde_path_to_error::Segment;
    let step = |segment: &Segment| match segment {
        Segment::Seq { index } => Some(Step::Index(*index)),
        Segment::Map { key } => Some(Step::Key(key.clone())),
        Segment::Enum { .. } | Segment::Unknown => None,
    };
    Path(path.iter().filter_map(step).collect())
}
