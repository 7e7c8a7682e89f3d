//! A recipe file and a command line to resolved values: the language from end to end.

use super::extends::Loader;
use super::interpolate::{MISSING, interpolate};
use super::overrides;
use super::path::{Path, Step};
use super::place::{Origin, Place, SourceFile, SourceMap};
use super::problem::{self, Problem};
use super::render::{Context, Rendered, is_declared, render, variable};
use super::tree::{Data, Node};
use crate::base::suggest::did_you_mean;
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
    rendered: Vec<Rendered>,
}

/// Reads, renders, overrides and resolves a recipe.
pub fn resolve(request: &Request) -> Result<Resolved, Vec<Problem>> {
    let mut composed = compose(request)?;
    let hydra = without_hydra(&mut composed.tree);
    let interpolated = interpolate(&composed.tree, request.environment);
    let mut problems = interpolated.problems;
    problems.extend(missing(&interpolated.missing));
    let mut tree = interpolated.tree;
    with_hydra(&mut tree, hydra);
    problems.extend(too_large(&tree, &composed.files));
    if !problems.is_empty() {
        return Err(composed.explained(problems));
    }
    let Composed { files, rendered, .. } = composed;
    Ok(Resolved { values: tree.to_value(), marks: tree.marks(), files, rendered })
}

/// Takes Hydra's settings of itself out: its interpolations (`${now:…}`) are read by Hydra alone.
pub(crate) fn without_hydra(tree: &mut Node) -> Option<Node> {
    match &mut tree.data {
        Data::Map(map) => map.remove("hydra"),
        _ => None,
    }
}

/// Puts them back, at the end.
pub(crate) fn with_hydra(tree: &mut Node, hydra: Option<Node>) {
    if let (Some(hydra), Data::Map(map)) = (hydra, &mut tree.data) {
        map.insert(Value::from("hydra"), hydra);
    }
}

/// A recipe with everything applied except its interpolations.
pub(crate) struct Composed {
    pub(crate) tree: Node,
    files: Vec<Arc<SourceFile>>,
    rendered: Vec<Rendered>,
}

impl Composed {
    /// Problems in order, with the lines of templates.
    pub(crate) fn explained(&self, problems: Vec<Problem>) -> Vec<Problem> {
        explained(problems, &self.files, &self.rendered)
    }
}

impl Resolved {
    /// Puts problems with this recipe in the order of its files, and names the template's line
    /// where a line was made by a template.
    pub fn explained(&self, problems: Vec<Problem>) -> Vec<Problem> {
        explained(problems, &self.files, &self.rendered)
    }
}

/// Reads, renders and overrides a recipe.
pub(crate) fn compose(request: &Request) -> Result<Composed, Vec<Problem>> {
    let mut context = Context::new(request);
    let mut loader = Loader::new(&context);
    let loaded = loader.load(request.path, None);
    let Loader { mut files, rendered, .. } = loader;
    let mut tree = loaded.map_err(|problems| explained(problems, &files, &rendered))?;
    if let Some(problem) = too_large(&tree, &files) {
        return Err(vec![problem]);
    }
    let mut problems = set_variables(&mut tree, request.variables, &rendered);
    problems.extend(render(&mut tree, &mut context));
    if let Some(json) = request.hparams {
        problems.extend(overrides::apply_hparams(&mut tree, json));
    }
    problems.extend(overrides::apply_all(&mut tree, request.overrides, &mut files));
    if problems.is_empty() {
        Ok(Composed { tree, files, rendered })
    } else {
        Err(explained(problems, &files, &rendered))
    }
}

/// Puts `--var` into the `vars` of a recipe; a name that nothing declares is a problem.
fn set_variables(
    tree: &mut Node,
    variables: &[(String, String)],
    rendered: &[Rendered],
) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (name, text) in variables {
        let written = format!("{name}={text}");
        let file = Arc::new(SourceFile { name: "--var".to_owned(), text: written });
        let place = |span| Place { file: Arc::clone(&file), span };
        let Some(Data::Map(vars)) = tree.child_mut("vars").map(|node| &mut node.data) else {
            problems.extend(undeclared(name, None, &place(0..name.len()), rendered));
            continue;
        };
        let Some(node) = vars.get_mut(name) else {
            let near = did_you_mean(name, vars.keys());
            problems.extend(undeclared(name, near, &place(0..name.len()), rendered));
            continue;
        };
        // A text stays one: `--var version=1.10` is no number when the recipe has "1.9".
        let keep = node.text().is_some_and(|text| text != MISSING && !text.contains("${"));
        let value = if keep { Value::String(text.clone()) } else { variable(text) };
        node.data = Data::Scalar(value);
        node.origin = Origin::File(place(name.len() + 1..file.text.len()));
    }
    problems
}

/// A problem, unless a template file uses the name.
fn undeclared(
    name: &str,
    near: Option<String>,
    place: &Place,
    rendered: &[Rendered],
) -> Option<Problem> {
    if rendered.iter().any(|rendered| is_declared(name, &rendered.used)) {
        return None;
    }
    let help = "declare it in the recipe under `vars:`, with ??? for no default";
    let message = format!("the recipe has no variable `{name}`");
    let problem =
        Problem::error("template::unknown_variable", message).at(Some(place), "this name");
    Some(problem.help(near.unwrap_or_else(|| help.to_owned())))
}

/// Bytes that the places of all values may take.
const MAX_MARKS: usize = 64 << 20;

/// A problem when long keys above many values make their paths too large to keep.
fn too_large(tree: &Node, files: &[Arc<SourceFile>]) -> Option<Problem> {
    if marks_size(tree, 0, MAX_MARKS).is_some() {
        return None;
    }
    let name = files.first().map_or("the recipe", |file| file.name.as_str());
    let message = format!("the values of {name} have paths of more than {} MiB", MAX_MARKS >> 20);
    Some(Problem::error("recipe::too_large", message).help("use shorter keys, or fewer of them"))
}

/// Bytes of the paths of a tree; none above a limit.
fn marks_size(node: &Node, path: usize, limit: usize) -> Option<usize> {
    let mut size = path;
    for (step, child) in node.children() {
        let step = match step {
            Step::Key(key) => key.len() + 48,
            Step::Index(_) => 48,
        };
        let left = limit.checked_sub(size)?;
        size += marks_size(child, path + step, left)?;
    }
    (size <= limit).then_some(size)
}

/// Problems in the order of the files as they were read; those of the command line come last.
fn explained(
    mut problems: Vec<Problem>,
    files: &[Arc<SourceFile>],
    rendered: &[Rendered],
) -> Vec<Problem> {
    for problem in &mut problems {
        for rendered in rendered {
            rendered.explain(problem);
        }
    }
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
