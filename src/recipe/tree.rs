//! The tree of a recipe on its way from text to values: every node knows where it was written.

use super::path::{Path, Step};
use super::place::{Marks, Origin, Place, SourceMap};
use serde_yaml::{Mapping, Value};
use std::collections::BTreeMap;

/// A value with the place it came from.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    /// The value.
    pub(crate) data: Data,
    /// The key, when the node stands in a mapping.
    pub(crate) key: Option<Place>,
    /// Where the value was written.
    pub(crate) origin: Origin,
}

/// What a node holds.
#[derive(Clone, Debug)]
pub(crate) enum Data {
    /// Null, a boolean, a number or a string; never a sequence, a mapping or a tagged value.
    Scalar(Value),
    List(Vec<Node>),
    Map(Map),
}

/// A mapping in the order of its text, with an index by the text of the key.
#[derive(Clone, Debug, Default)]
pub(crate) struct Map {
    entries: Vec<(Value, Node)>,
    index: BTreeMap<String, usize>,
}

impl Node {
    pub(crate) fn scalar(value: Value, origin: Origin) -> Node {
        Node { data: Data::Scalar(value), key: None, origin }
    }

    /// The text, when the node is a string.
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.data {
            Data::Scalar(Value::String(text)) => Some(text),
            _ => None,
        }
    }

    /// The node below this one by one step: a key, or an index written as a number.
    pub(crate) fn child(&self, step: &str) -> Option<&Node> {
        match &self.data {
            Data::Map(map) => map.get(step),
            Data::List(items) => items.get(list_index(step)?),
            Data::Scalar(_) => None,
        }
    }

    /// Like [`Node::child`], to change it.
    pub(crate) fn child_mut(&mut self, step: &str) -> Option<&mut Node> {
        match &mut self.data {
            Data::Map(map) => map.get_mut(step),
            Data::List(items) => items.get_mut(list_index(step)?),
            Data::Scalar(_) => None,
        }
    }

    /// The node at a path.
    pub(crate) fn at(&self, path: &Path) -> Option<&Node> {
        path.0.iter().try_fold(self, |node, step| match (step, &node.data) {
            (Step::Key(key), Data::Map(map)) => map.get(key),
            (Step::Index(index), Data::List(items)) => items.get(*index),
            _ => None,
        })
    }

    /// The plain value.
    pub(crate) fn to_value(&self) -> Value {
        match &self.data {
            Data::Scalar(value) => value.clone(),
            Data::List(items) => Value::Sequence(items.iter().map(Node::to_value).collect()),
            Data::Map(map) => {
                let entries = map.iter().map(|(key, node)| (key.clone(), node.to_value()));
                Value::Mapping(entries.collect::<Mapping>())
            }
        }
    }

    /// A node for a plain value, with one origin for all of it.
    pub(crate) fn from_value(value: &Value, origin: &Origin) -> Node {
        let data = match value {
            Value::Sequence(items) => {
                Data::List(items.iter().map(|item| Node::from_value(item, origin)).collect())
            }
            Value::Mapping(entries) => {
                let mut map = Map::default();
                for (key, item) in entries {
                    map.insert(key.clone(), Node::from_value(item, origin));
                }
                Data::Map(map)
            }
            Value::Tagged(tagged) => return Node::from_value(&tagged.value, origin),
            scalar => Data::Scalar(scalar.clone()),
        };
        Node { data, key: None, origin: origin.clone() }
    }

    /// The places of this node and of everything below it.
    pub(crate) fn marks(&self) -> SourceMap {
        let mut marks = SourceMap::new();
        self.collect_marks(&Path::default(), &mut marks);
        marks
    }

    fn collect_marks(&self, path: &Path, marks: &mut SourceMap) {
        marks.insert(path.clone(), Marks { key: self.key.clone(), value: self.origin.clone() });
        for (step, child) in self.children() {
            let mut below = path.clone();
            below.0.push(step);
            child.collect_marks(&below, marks);
        }
    }

    /// The nodes right below, each with its step.
    pub(crate) fn children(&self) -> Vec<(Step, &Node)> {
        match &self.data {
            Data::Scalar(_) => Vec::new(),
            Data::List(items) => {
                items.iter().enumerate().map(|(at, node)| (Step::Index(at), node)).collect()
            }
            Data::Map(map) => {
                map.iter().map(|(key, node)| (Step::Key(key_text(key)), node)).collect()
            }
        }
    }
}

impl Map {
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        self.entries.get(*self.index.get(key)?).map(|(_, node)| node)
    }

    pub(crate) fn get_mut(&mut self, key: &str) -> Option<&mut Node> {
        self.entries.get_mut(*self.index.get(key)?).map(|(_, node)| node)
    }

    /// Puts a value under a key: in the key's place when it is there, else at the end.
    pub(crate) fn insert(&mut self, key: Value, node: Node) {
        let text = key_text(&key);
        if let Some(entry) = self.index.get(&text).and_then(|at| self.entries.get_mut(*at)) {
            *entry = (key, node);
            return;
        }
        self.index.insert(text, self.entries.len());
        self.entries.push((key, node));
    }

    /// Takes a key out; the others keep their order.
    pub(crate) fn remove(&mut self, key: &str) -> Option<Node> {
        let at = self.index.remove(key)?;
        for place in self.index.values_mut().filter(|place| **place > at) {
            *place -= 1;
        }
        Some(self.entries.remove(at).1)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Value, &Node)> {
        self.entries.iter().map(|(key, node)| (key, node))
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (&Value, &mut Node)> {
        self.entries.iter_mut().map(|(key, node)| (&*key, node))
    }

    pub(crate) fn into_entries(self) -> Vec<(Value, Node)> {
        self.entries
    }

    /// The texts of the keys, sorted.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        self.index.keys().map(String::as_str)
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }
}

/// A key as it stands in a path.
pub(crate) fn key_text(key: &Value) -> String {
    match key {
        Value::String(text) => text.clone(),
        other => super::scalar::python_text(other),
    }
}

/// A list index in a path: digits without a sign or leading zeros.
pub(crate) fn list_index(step: &str) -> Option<usize> {
    let digits = !step.is_empty() && step.bytes().all(|byte| byte.is_ascii_digit());
    let plain = step == "0" || !step.starts_with('0');
    if digits && plain { step.parse().ok() } else { None }
}
