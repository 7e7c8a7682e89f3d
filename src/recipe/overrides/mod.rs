//! `KEY=VALUE` on the command line and trlx's `--hparams`: what is set after the file is read.

mod apply;
mod element;
mod functions;
mod grammar;
mod sweep;

pub(crate) use apply::merge;
pub use sweep::{Form, Tried, expand_sweep, tried};

use super::place::{Origin, Place, SourceFile};
use super::problem::Problem;
use super::source;
use super::tree::{Data, Map, Node};
use element::{Action, Element, Parsed};
use serde_yaml::Value;
use std::path::Path;
use std::sync::Arc;

/// An override ready to be applied: read, with its places.
struct Ready {
    action: Action,
    key: Vec<String>,
    key_place: Place,
    value: Option<Node>,
    /// The text as it was typed.
    text: String,
}

/// Applies overrides from left to right; each that fails is a problem, the others go on.
pub(crate) fn apply_all(
    tree: &mut Node,
    overrides: &[String],
    files: &mut Vec<Arc<SourceFile>>,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (index, text) in overrides.iter().enumerate() {
        let name = format!("override {}", index + 1);
        let file = Arc::new(SourceFile { name, text: text.clone() });
        let ready = read(&file, index + 1, files);
        match ready.and_then(|ready| apply::apply(tree, ready).map_err(|problem| vec![*problem])) {
            Ok(()) => {}
            Err(found) => problems.extend(found),
        }
    }
    problems
}

fn read(
    file: &Arc<SourceFile>,
    number: usize,
    files: &mut Vec<Arc<SourceFile>>,
) -> Result<Ready, Vec<Problem>> {
    let parsed = grammar::parse(&file.text).map_err(|error| {
        let length = file.text.get(error.at..).and_then(|rest| rest.chars().next());
        let length = length.map_or(0, char::len_utf8);
        let place = Place { file: Arc::clone(file), span: error.at..error.at + length };
        let message =
            format!("cannot read the override `{}`: {}", shown(&file.text), error.message);
        let problem = Problem::error("override::syntax", message).at(Some(&place), "here");
        vec![problem.help_if(error.help.map(str::to_owned))]
    })?;
    let Parsed { action, key, key_span, value, value_span } = parsed;
    let key_place = Place { file: Arc::clone(file), span: key_span };
    let place = Place { file: Arc::clone(file), span: value_span };
    let value = match value {
        None => None,
        Some(Element::Word(Value::String(text))) if text.starts_with('@') => {
            Some(from_file(text.trim_start_matches('@'), &place, files)?)
        }
        Some(element) => {
            let origin = Origin::Override(number, place.clone());
            let node = to_node(element, &origin).ok_or_else(|| ambiguous(&file.text, &place))?;
            Some(node)
        }
    };
    Ok(Ready { action, key, key_place, value, text: file.text.clone() })
}

/// `key=@file.yaml`: the path starts at the working directory, as the shell completes it.
fn from_file(
    path: &str,
    place: &Place,
    files: &mut Vec<Arc<SourceFile>>,
) -> Result<Node, Vec<Problem>> {
    let source = source::load(Path::new(path)).map_err(|problems| {
        let here = |problem: Problem| match problem.place {
            Some(_) => problem,
            None => problem.at(Some(place), "named here"),
        };
        problems.into_iter().map(here).collect::<Vec<_>>()
    })?;
    files.push(source.file);
    Ok(source.tree)
}

fn ambiguous(text: &str, place: &Place) -> Vec<Problem> {
    let key = text.split('=').next().unwrap_or(text);
    let message = format!("`{}` holds several values and could mean three things", shown(text));
    vec![Problem::error("override::ambiguous", message).at(Some(place), "several values").help(
        format!(
            "a list: {key}=[a,b]; a text: '{key}=\"a,b\"'; to try each: sft-run sweep RECIPE {}",
            shown(text)
        ),
    )]
}

/// A typed text short enough for a message.
fn shown(text: &str) -> String {
    if text.chars().count() <= 100 {
        return text.to_owned();
    }
    text.chars().take(97).chain("...".chars()).collect()
}

/// A value of the command line as a node; none when a sweep is in it.
fn to_node(element: Element, origin: &Origin) -> Option<Node> {
    let data = match element {
        Element::Word(value) => Data::Scalar(value),
        Element::Quoted { text, .. } => Data::Scalar(Value::String(text)),
        Element::List(items) => {
            let items = items.into_iter().map(|item| to_node(item, origin));
            Data::List(items.collect::<Option<Vec<_>>>()?)
        }
        Element::Map(pairs) => {
            let mut map = Map::default();
            for (key, item) in pairs {
                let mut node = to_node(item, origin)?;
                node.key = origin.place().cloned();
                map.insert(key, node);
            }
            Data::Map(map)
        }
        Element::Sweep(_) => return None,
    };
    Some(Node { data, key: None, origin: origin.clone() })
}

/// Applies trlx's JSON object of dotted keys; every key must be in the recipe.
pub(crate) fn apply_hparams(tree: &mut Node, json: &str) -> Vec<Problem> {
    let file = Arc::new(SourceFile { name: "--hparams".to_owned(), text: json.to_owned() });
    let whole = Place { file: Arc::clone(&file), span: 0..json.len() };
    let pairs = match serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(json) {
        Ok(pairs) => pairs,
        Err(error) => {
            let message = format!("--hparams is not a JSON object: {error}");
            let help = "such as --hparams '{\"model.optim.lr\": 1e-4}'";
            return vec![
                Problem::error("override::hparams", message)
                    .at(Some(&whole), "this text")
                    .help(help),
            ];
        }
    };
    let mut problems = Vec::new();
    for (key, value) in pairs {
        let written = serde_json::Value::String(key.clone()).to_string();
        let at = json.find(&written).unwrap_or(0);
        let place =
            Place { file: Arc::clone(&file), span: at..(at + written.len()).min(json.len()) };
        let value = serde_yaml::to_value(&value).unwrap_or_default();
        let value = Node::from_value(&value, &Origin::File(place.clone()));
        let ready = Ready {
            action: Action::Change,
            key: key.split('.').map(str::to_owned).collect(),
            key_place: place,
            value: Some(value),
            text: key,
        };
        problems.extend(apply::apply(tree, ready).err().map(|problem| *problem));
    }
    problems
}
