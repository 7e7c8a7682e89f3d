//! Evaluates interpolations lazily, each once, and says where a circle of them closes.

use super::grammar::{self, Element, Interpolation, Kind, Part, SyntaxError};
use super::select::Reached;
use super::{MISSING, is_interpolated, resolvers};
use crate::recipe::path::Path;
use crate::recipe::place::{Origin, Place};
use crate::recipe::problem::Problem;
use crate::recipe::scalar::python_text;
use crate::recipe::tree::{Data, Map, Node, key_text};
use serde_yaml::Value;
use std::collections::BTreeMap;
use std::ops::Range;

/// Interpolations that wait for each other at once.
const MAX_OPEN: usize = 48;
/// Values looked at and made: a bound on time and memory, far above any recipe.
const MAX_FUEL: usize = 400_000;
/// Bytes of text that cost as much as one value.
const TEXT_PER_FUEL: usize = 40;
/// Problems after which evaluation stops.
const MAX_PROBLEMS: usize = 50;

/// Why there is no value.
#[derive(Clone, Debug)]
pub(super) enum Stuck {
    /// The reason is in the list of problems.
    Failed,
    /// It depends on a value that nobody set.
    Missing(Path, Option<Place>),
}

pub(super) type Outcome<T> = Result<T, Stuck>;

/// Where an interpolation stands.
#[derive(Clone, Copy)]
pub(super) struct Holder<'h> {
    pub(super) path: &'h Path,
    pub(super) node: &'h Node,
}

pub(super) struct Evaluator<'t> {
    pub(super) root: &'t Node,
    pub(super) environment: &'t BTreeMap<String, String>,
    /// What interpolated texts came to.
    done: BTreeMap<Path, Outcome<Node>>,
    /// The interpolated texts being evaluated, outermost first.
    pub(super) open: Vec<(Path, Option<Place>)>,
    fuel: usize,
    pub(super) problems: Vec<Problem>,
}

impl<'t> Evaluator<'t> {
    pub(super) fn new(root: &'t Node, environment: &'t BTreeMap<String, String>) -> Evaluator<'t> {
        let (done, open, problems) = (BTreeMap::new(), Vec::new(), Vec::new());
        Evaluator { root, environment, done, open, fuel: MAX_FUEL, problems }
    }

    /// The value of a text with interpolations, standing at a path of the recipe.
    pub(super) fn interpolated(&mut self, path: &Path, node: &Node) -> Outcome<Node> {
        let holder = Holder { path, node };
        if let Some(done) = self.done.remove(path) {
            // A copy costs as much as making it: copies of copies grow without bound.
            let paid = done.as_ref().map_or(Ok(()), |value| self.charge(value, holder));
            let copy = paid.and_then(|()| done.clone());
            self.done.insert(path.clone(), done);
            return copy;
        }
        self.enter(path, node)?;
        let value = self.parse(holder).and_then(|parts| self.parts(&parts, holder));
        self.open.pop();
        let value =
            value.map(|value| Node { key: node.key.clone(), origin: node.origin.clone(), ..value });
        self.done.insert(path.clone(), value.clone());
        value
    }

    pub(super) fn enter(&mut self, path: &Path, node: &Node) -> Outcome<()> {
        let place = node.origin.place();
        if let Some(first) = self.open.iter().position(|(open, _)| open == path) {
            let circle = self.open.split_off(first);
            let mut names: Vec<_> = circle.iter().map(|(path, _)| path.to_string()).collect();
            names.push(path.to_string());
            let message = format!("interpolations go in a circle: {}", names.join(" → "));
            let mut problem = Problem::error("interpolation::cycle", message)
                .about(path.clone())
                .at(place, "needs its own value")
                .help("give one of them a value of its own");
            for (_, place) in circle.iter().skip(1) {
                problem = problem.with(place.as_ref(), "on the way");
            }
            self.open.extend(circle);
            return Err(self.report(problem));
        }
        if self.problems.len() >= MAX_PROBLEMS {
            return Err(Stuck::Failed);
        }
        if self.open.len() == MAX_OPEN {
            let message = format!("more than {MAX_OPEN} interpolations need each other in a row");
            let problem = Problem::error("interpolation::too_deep", message).about(path.clone());
            return Err(self.report(problem.at(place, "the last one")));
        }
        self.open.push((path.clone(), place.cloned()));
        Ok(())
    }

    pub(super) fn parse(&mut self, holder: Holder) -> Outcome<Vec<Part>> {
        let text = holder.node.text().unwrap_or_default();
        self.spend(1 + text.len() / TEXT_PER_FUEL, holder)?;
        grammar::parts(text).map_err(|error| self.syntax(&error, holder))
    }

    pub(super) fn syntax(&mut self, error: &SyntaxError, holder: Holder) -> Stuck {
        let text = holder.node.text().unwrap_or_default();
        let length =
            text.get(error.at..).and_then(|rest| rest.chars().next()).map_or(0, char::len_utf8);
        let span = error.at..error.at + length;
        let message = format!("cannot read this interpolation: {}", error.message);
        let help = "quote what is text: ${name:'text'}; a literal `${` is written `\\${`";
        self.fail(Problem::error("interpolation::syntax", message).help(help), span, holder)
    }

    fn parts(&mut self, parts: &[Part], holder: Holder) -> Outcome<Node> {
        if let [Part::Interpolation(only)] = parts {
            return self.interpolation(only, holder);
        }
        let text = self.text(parts, holder)?;
        Ok(Node::scalar(Value::String(text), holder.node.origin.clone()))
    }

    /// Parts put together, values written as Python's `str` does.
    fn text(&mut self, parts: &[Part], holder: Holder) -> Outcome<String> {
        let mut text = String::new();
        for part in parts {
            match part {
                Part::Text(part) => text.push_str(part),
                Part::Interpolation(part) => {
                    let value = self.interpolation(part, holder)?;
                    text.push_str(&python_text(&value.to_value()));
                }
            }
            self.spend(1 + text.len() / TEXT_PER_FUEL, holder)?;
        }
        Ok(text)
    }

    pub(super) fn interpolation(&mut self, part: &Interpolation, holder: Holder) -> Outcome<Node> {
        match &part.kind {
            Kind::Node { dots, keys } => {
                let reached = self.select(*dots, keys, &part.span, holder)?;
                self.read(reached, holder)
            }
            Kind::Resolver { name, arguments } => {
                let arguments: Outcome<Vec<_>> =
                    arguments.iter().map(|argument| self.element(argument, holder)).collect();
                let call =
                    resolvers::Call { name, arguments: arguments?, span: &part.span, holder };
                let value = resolvers::call(self, &call)?;
                self.charge(&value, holder)?;
                Ok(value)
            }
        }
    }

    pub(super) fn element(&mut self, element: &Element, holder: Holder) -> Outcome<Node> {
        let origin = || holder.node.origin.clone();
        match element {
            Element::Literal(value) => Ok(Node::scalar(value.clone(), origin())),
            Element::Text(parts) => {
                let text = self.text(parts, holder)?;
                Ok(Node::scalar(Value::String(text), origin()))
            }
            Element::Interpolation(part) => self.interpolation(part, holder),
            Element::List(items) => {
                let items: Outcome<Vec<_>> =
                    items.iter().map(|item| self.element(item, holder)).collect();
                Ok(Node { data: Data::List(items?), key: None, origin: origin() })
            }
            Element::Map(pairs) => {
                let mut map = Map::default();
                for (key, value) in pairs {
                    map.insert(key.clone(), self.element(value, holder)?);
                }
                Ok(Node { data: Data::Map(map), key: None, origin: origin() })
            }
        }
    }

    /// The whole value of what was reached.
    pub(super) fn read(&mut self, reached: Reached<'t>, holder: Holder) -> Outcome<Node> {
        match reached {
            Reached::Made(node) => Ok(node),
            Reached::Tree(path, node) if node.text() == Some(MISSING) => {
                Err(Stuck::Missing(path, node.origin.place().cloned()))
            }
            Reached::Tree(path, node) => self.read_tree(&path, node, holder),
        }
    }

    fn read_tree(&mut self, path: &Path, node: &Node, holder: Holder) -> Outcome<Node> {
        self.spend(1, holder)?;
        let data = match &node.data {
            Data::Scalar(Value::String(text)) if is_interpolated(text) => {
                return self.interpolated(path, node);
            }
            Data::Scalar(Value::String(text)) => {
                self.spend(text.len() / TEXT_PER_FUEL, holder)?;
                return Ok(node.clone());
            }
            Data::Scalar(_) => return Ok(node.clone()),
            Data::List(_) | Data::Map(_) => &node.data,
        };
        // A collection that holds a reference to itself has no end.
        self.enter(path, node)?;
        let below = self.read_below(path, data, holder);
        self.open.pop();
        Ok(Node { data: below?, key: node.key.clone(), origin: node.origin.clone() })
    }

    fn read_below(&mut self, path: &Path, data: &Data, holder: Holder) -> Outcome<Data> {
        match data {
            Data::Scalar(value) => Ok(Data::Scalar(value.clone())),
            Data::List(items) => {
                let items = items.iter().enumerate();
                let items = items.map(|(at, item)| self.read_tree(&path.index(at), item, holder));
                items.collect::<Outcome<Vec<_>>>().map(Data::List)
            }
            Data::Map(entries) => {
                let mut map = Map::default();
                for (key, item) in entries.iter() {
                    let item = self.read_tree(&path.key(&key_text(key)), item, holder)?;
                    map.insert(key.clone(), item);
                }
                Ok(Data::Map(map))
            }
        }
    }

    fn charge(&mut self, node: &Node, holder: Holder) -> Outcome<()> {
        let text = node.text().map_or(0, str::len);
        self.spend(1 + text / TEXT_PER_FUEL, holder)?;
        for (_, child) in node.children() {
            self.charge(child, holder)?;
        }
        Ok(())
    }

    pub(super) fn spend(&mut self, fuel: usize, holder: Holder) -> Outcome<()> {
        if let Some(left) = self.fuel.checked_sub(fuel) {
            self.fuel = left;
            return Ok(());
        }
        self.fuel = 0;
        if self.problems.iter().any(|problem| problem.code == "interpolation::too_much") {
            return Err(Stuck::Failed);
        }
        let problem =
            Problem::error("interpolation::too_much", "interpolations make too much of this")
                .help("values that copy each other grow with every step");
        Err(self.fail(problem, 0..0, holder))
    }

    /// Reports a problem with a part of the text at a path.
    pub(super) fn fail(&mut self, problem: Problem, span: Range<usize>, holder: Holder) -> Stuck {
        let place = holder.node.origin.place();
        let text = holder.node.text().unwrap_or_default();
        let place = place.map(|place| place.inside(text, span));
        let label = "in this interpolation";
        self.report(problem.about(holder.path.clone()).at(place.as_ref(), label))
    }

    fn report(&mut self, problem: Problem) -> Stuck {
        if self.problems.len() <= MAX_PROBLEMS {
            self.problems.push(problem);
        }
        Stuck::Failed
    }
}

/// The place of a value for a related note, when it is not the place of the reader.
pub(super) fn foreign_place<'n>(node: &'n Node, holder: Holder<'_>) -> Option<&'n Place> {
    match &node.origin {
        origin if *origin == holder.node.origin => None,
        Origin::Default => None,
        origin => origin.place(),
    }
}
