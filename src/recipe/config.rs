//! Prints what a YAML mapping comes to: `sft-run config`, before and without the schemas.

use super::emit;
use super::interpolate::interpolate;
use super::problem::Problem;
use super::resolve::{Request, compose, with_hydra, without_hydra};
use super::tree::{Data, Node};
use crate::base::suggest::did_you_mean;

/// What is printed, and how.
#[derive(Clone, Copy, Debug, Default)]
pub struct View<'a> {
    /// Interpolations as their values instead of as they stand.
    pub resolve: bool,
    /// Only what is below this dotted path.
    pub path: Option<&'a str>,
    /// Beside each value where it came from.
    pub origins: bool,
    /// JSON instead of YAML.
    pub json: bool,
}

/// The values of a file with its overrides as text that NeMo can load again.
///
/// `???` is printed as it stands, and so is what is computed from it.
pub fn config_text(request: &Request, view: &View) -> Result<String, Vec<Problem>> {
    let mut composed = compose(request)?;
    if view.resolve {
        let hydra = without_hydra(&mut composed.tree);
        let mut interpolated = interpolate(&composed.tree, request.environment);
        with_hydra(&mut interpolated.tree, hydra);
        if !interpolated.problems.is_empty() {
            return Err(composed.explained(interpolated.problems));
        }
        composed.tree = interpolated.tree;
    }
    let shown = match view.path {
        Some(path) => select(&composed.tree, path).map_err(|problem| vec![*problem])?,
        None => &composed.tree,
    };
    let emit = if view.json { emit::json } else { emit::yaml };
    Ok(emit(shown, view.origins))
}

fn select<'t>(tree: &'t Node, path: &str) -> Result<&'t Node, Box<Problem>> {
    let mut node = tree;
    for step in path.split('.') {
        node = node.child(step).ok_or_else(|| {
            let message = format!("`{path}` is not in the recipe: there is no `{step}`");
            let near = match &node.data {
                Data::Map(map) => did_you_mean(step, map.keys()),
                _ => None,
            };
            Box::new(Problem::error("config::unknown_path", message).help_if(near))
        })?;
    }
    Ok(node)
}
