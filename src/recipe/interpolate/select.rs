//! Where the paths in interpolations lead: down from the root or up from the holder, and through
//! other interpolations on the way.

use super::evaluate::{Evaluator, Holder, Outcome};
use super::grammar::{Interpolation, Key, Kind, Part};
use super::is_interpolated;
use crate::base::suggest::did_you_mean;
use crate::recipe::path::{Path, Step};
use crate::recipe::problem::Problem;
use crate::recipe::tree::{Data, Node, list_index};
use std::ops::Range;

/// A place reached by a path: in the recipe, or in what a resolver made.
pub(super) enum Reached<'t> {
    Tree(Path, &'t Node),
    Made(Node),
}

impl Reached<'_> {
    fn node(&self) -> &Node {
        match self {
            Reached::Tree(_, node) => node,
            Reached::Made(node) => node,
        }
    }
}

impl<'t> Evaluator<'t> {
    /// The value below a path written as text, for resolvers; none when there is none.
    pub(super) fn find(&mut self, path: &str, holder: Holder) -> Outcome<Option<Node>> {
        let dots = path.len() - path.trim_start_matches('.').len();
        let spelled = path.get(dots..).unwrap_or_default().replace('[', ".").replace(']', "");
        let keys: Vec<_> = spelled.split('.').map(str::to_owned).collect();
        let Some(base) = base(dots, holder.path) else { return Ok(None) };
        match self.descend(&base, &keys, holder)? {
            Ok(reached) => self.read(reached, holder).map(Some),
            Err(_) => Ok(None),
        }
    }

    /// Where `${a.b}` leads.
    pub(super) fn select(
        &mut self,
        dots: usize,
        keys: &[Key],
        span: &Range<usize>,
        holder: Holder,
    ) -> Outcome<Reached<'t>> {
        let mut names = Vec::new();
        for key in keys {
            match key {
                Key::Name(name) => names.push(name.clone()),
                Key::Nested(part) => {
                    let text = self.key(part, holder)?;
                    names.extend(text.split('.').map(str::to_owned));
                }
            }
        }
        let spelled = format!("{}{}", ".".repeat(dots), names.join("."));
        let Some(base) = base(dots, holder.path) else {
            let message = format!("`${{{spelled}}}` leads above the root of the recipe");
            let problem = Problem::error("interpolation::not_found", message)
                .help("one dot is the mapping that holds the value, each further dot is one up");
            return Err(self.fail(problem, span.clone(), holder));
        };
        self.descend(&base, &names, holder)?.map_err(|stop| {
            let at = if stop.path.0.is_empty() {
                "the recipe".to_owned()
            } else {
                format!("`{}`", stop.path)
            };
            let message = format!("`${{{spelled}}}` leads nowhere: {at} has no `{}`", stop.step);
            let known = stop.known.iter().map(String::as_str);
            let problem = Problem::error("interpolation::not_found", message)
                .help_if(did_you_mean(&stop.step, known));
            self.fail(problem, span.clone(), holder)
        })
    }

    /// The text that a nested interpolation gives as a key.
    fn key(&mut self, part: &Interpolation, holder: Holder) -> Outcome<String> {
        let value = self.interpolation(part, holder)?;
        value.text().map(str::to_owned).ok_or_else(|| {
            let message = "a key that is taken from another value must be a text";
            let problem = Problem::error("interpolation::key", message);
            self.fail(problem, part.span.clone(), holder)
        })
    }

    /// Goes down by keys, through interpolations on the way.
    fn descend(
        &mut self,
        base: &Path,
        keys: &[String],
        holder: Holder,
    ) -> Outcome<Result<Reached<'t>, Stop>> {
        let Some(node) = self.root.at(base) else {
            return Ok(Err(Stop { path: Path::default(), step: base.to_string(), known: vec![] }));
        };
        let mut reached = Reached::Tree(base.clone(), node);
        let mut so_far = base.clone();
        for key in keys {
            self.spend(1, holder)?;
            reached = self.follow(reached)?;
            let next = match &reached {
                Reached::Tree(path, node) => {
                    node.child(key).map(|child| Reached::Tree(below(path, node, key), child))
                }
                Reached::Made(node) => node.child(key).cloned().map(Reached::Made),
            };
            let Some(next) = next else {
                let known = match &reached.node().data {
                    Data::Map(map) => map.keys().map(str::to_owned).collect(),
                    _ => Vec::new(),
                };
                return Ok(Err(Stop { path: so_far, step: key.clone(), known }));
            };
            so_far = so_far.key(key);
            reached = next;
        }
        Ok(Ok(reached))
    }

    /// If an interpolation was reached: where it leads, without reading what is below.
    fn follow(&mut self, reached: Reached<'t>) -> Outcome<Reached<'t>> {
        let Reached::Tree(path, node) = &reached else { return Ok(reached) };
        if !node.text().is_some_and(is_interpolated) {
            return Ok(reached);
        }
        let holder = Holder { path, node };
        let parts = self.parse(holder)?;
        let [Part::Interpolation(Interpolation { span, kind: Kind::Node { dots, keys } })] =
            parts.as_slice()
        else {
            return self.interpolated(path, node).map(Reached::Made);
        };
        self.enter(path, node)?;
        let next = self.select(*dots, keys, span, holder).and_then(|next| self.follow(next));
        self.open.pop();
        next
    }
}

/// Where a path stopped.
struct Stop {
    path: Path,
    step: String,
    known: Vec<String>,
}

/// Where a relative path starts: one dot is the collection that holds the value.
fn base(dots: usize, holder: &Path) -> Option<Path> {
    let Some(up) = dots.checked_sub(1) else { return Some(Path::default()) };
    let length = holder.0.len().checked_sub(up + 1)?;
    Some(Path(holder.0.get(..length)?.to_vec()))
}

/// The path of a child, by the kind of its parent.
fn below(path: &Path, parent: &Node, step: &str) -> Path {
    let mut path = path.clone();
    let index = if matches!(parent.data, Data::List(_)) { list_index(step) } else { None };
    path.0.push(index.map_or_else(|| Step::Key(step.to_owned()), Step::Index));
    path
}
