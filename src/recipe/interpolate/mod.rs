//! `${…}`: values that are taken from other values, after the overrides.

mod evaluate;
pub(crate) mod grammar;
mod resolvers;
mod select;

use super::path::Path;
use super::place::Place;
use super::problem::Problem;
use super::tree::{Data, Node};
use evaluate::{Evaluator, Stuck};
use serde_yaml::Value;
use std::collections::BTreeMap;

/// OmegaConf's word for "somebody must set this".
pub(crate) const MISSING: &str = "???";

/// The tree with every interpolation replaced by its value.
pub(crate) struct Interpolated {
    /// What could not be evaluated stands here as it was written.
    pub(crate) tree: Node,
    /// What could not be evaluated, and why; missing values are not among them.
    pub(crate) problems: Vec<Problem>,
    /// The values that somebody must set, in order.
    pub(crate) missing: Vec<(Path, Option<Place>)>,
}

/// Evaluates all interpolations of a tree; `${oc.env:…}` reads only the environment given.
pub(crate) fn interpolate(root: &Node, environment: &BTreeMap<String, String>) -> Interpolated {
    let mut evaluator = Evaluator::new(root, environment);
    let mut missing = BTreeMap::new();
    let tree = walk(&mut evaluator, &Path::default(), root, &mut missing);
    let mut missing: Vec<_> = missing.into_iter().collect();
    missing.sort_by_key(|(_, place)| place.as_ref().map(|place| place.span.start));
    Interpolated { tree, problems: evaluator.problems, missing }
}

/// Whether a text has an interpolation, or an escaped one, in it.
pub(crate) fn is_interpolated(text: &str) -> bool {
    text.contains("${")
}

fn walk(
    evaluator: &mut Evaluator,
    path: &Path,
    node: &Node,
    missing: &mut BTreeMap<Path, Option<Place>>,
) -> Node {
    let data = match &node.data {
        Data::Scalar(Value::String(text)) if text == MISSING => {
            missing.insert(path.clone(), node.origin.place().cloned());
            return node.clone();
        }
        Data::Scalar(Value::String(text)) if is_interpolated(text) => {
            return evaluator.interpolated(path, node).unwrap_or_else(|stuck| {
                if let Stuck::Missing(at, place) = stuck {
                    missing.insert(at, place);
                }
                node.clone()
            });
        }
        Data::Scalar(_) => return node.clone(),
        Data::List(items) => {
            let items = items.iter().enumerate();
            let items = items.map(|(at, item)| walk(evaluator, &path.index(at), item, missing));
            Data::List(items.collect())
        }
        Data::Map(map) => {
            let mut map = map.clone();
            for (key, item) in map.iter_mut() {
                let below = path.key(&super::tree::key_text(key));
                *item = walk(evaluator, &below, item, missing);
            }
            Data::Map(map)
        }
    };
    Node { data, key: node.key.clone(), origin: node.origin.clone() }
}
