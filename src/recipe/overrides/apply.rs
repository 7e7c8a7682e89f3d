//! Changes a tree by one override, under the rule that `key=value` never makes a new key.

use super::element::Action;
use super::{Ready, shown};
use crate::base::suggest::{did_you_mean, nearest};
use crate::recipe::interpolate::is_interpolated;
use crate::recipe::keys;
use crate::recipe::path::{Path, Step};
use crate::recipe::place::Origin;
use crate::recipe::problem::Problem;
use crate::recipe::scalar::python_repr;
use crate::recipe::tree::{Data, Map, Node, key_text, list_index};
use serde_yaml::Value;

type Applied = Result<(), Box<Problem>>;

/// The most keys and items in a row that an override may reach down.
const MAX_STEPS: usize = 32;

/// Applies one override.
pub(super) fn apply(tree: &mut Node, ready: Ready) -> Applied {
    if ready.key.len() > MAX_STEPS {
        return Err(ready.problem("override::syntax", "this key has too many parts".to_owned()));
    }
    if ready.key.first().is_some_and(|key| key == "vars") {
        let message = "`vars` are used before overrides are applied".to_owned();
        let problem = ready.problem("override::vars", message);
        return Err(Box::new(problem.help("set a variable with --var name=value")));
    }
    if ready.key.first().is_some_and(|key| key == "extends") {
        let message = "`extends` is followed before overrides are applied".to_owned();
        return Err(ready.problem("override::extends", message));
    }
    match ready.action {
        Action::Delete => delete(tree, &ready),
        Action::Append => append(tree, ready),
        Action::Change | Action::Add | Action::Force => set(tree, ready),
    }
}

impl Ready {
    fn spelled(&self) -> String {
        self.key.join(".")
    }

    fn problem(&self, code: &'static str, message: String) -> Box<Problem> {
        let label = if code == "override::unknown_key" { "not in the recipe" } else { "this key" };
        Box::new(Problem::error(code, message).at(Some(&self.key_place), label))
    }

    /// The problem of a step that is not there.
    fn unknown(&self, parent: &Node, depth: usize) -> Box<Problem> {
        let at = self.key.get(..=depth).unwrap_or(&self.key).join(".");
        let step = self.key.get(depth).map_or("", String::as_str);
        let (message, help) = match &parent.data {
            Data::List(items) => {
                let message = format!("`{at}`: the list has {} items, counted from 0", items.len());
                (
                    message,
                    Some("replace the list: key=[item,item]; add to it: key+=[item]".to_owned()),
                )
            }
            Data::Scalar(Value::String(text)) if is_interpolated(text) => {
                (format!("`{at}`: the value above it is the interpolation `{text}`"), None)
            }
            Data::Scalar(value) => {
                let value = python_repr(value);
                (format!("`{at}`: the value above it is {} and holds no keys", shown(&value)), None)
            }
            Data::Map(map) => {
                let near = did_you_mean(step, map.keys());
                let help = match self.action {
                    Action::Change => advice(near, &path_of(&self.key), &self.text),
                    _ => near,
                };
                (format!("`{at}` is not in the recipe"), help)
            }
        };
        Box::new(self.problem("override::unknown_key", message).help_if(help))
    }

    /// The node that holds the last key; `make` fills in mappings on the way.
    fn parent<'n>(
        &self,
        tree: &'n mut Node,
        make: bool,
    ) -> Result<(&'n mut Node, &str), Box<Problem>> {
        let (last, way) =
            self.key.split_last().map_or(("", &[][..]), |(last, way)| (last.as_str(), way));
        let mut node = tree;
        for (depth, step) in way.iter().enumerate() {
            if make {
                self.make(node, step);
            }
            if node.child(step).is_none() {
                return Err(self.unknown(node, depth));
            }
            let Some(child) = node.child_mut(step) else {
                let message = format!("`{}` is not in the recipe", self.spelled());
                return Err(self.problem("override::unknown_key", message));
            };
            node = child;
        }
        if make {
            hold(node);
        }
        Ok((node, last))
    }

    /// Makes a mapping under a key that is not there, or that is null.
    fn make(&self, node: &mut Node, step: &str) {
        hold(node);
        let Data::Map(map) = &mut node.data else { return };
        if map.get(step).is_none() {
            let origin = self.origin();
            let data = Data::Map(Map::default());
            let made = Node { data, key: Some(self.key_place.clone()), origin };
            map.insert(Value::String(step.to_owned()), made);
        }
    }

    fn origin(&self) -> Origin {
        self.value.as_ref().map_or(Origin::Default, |value| value.origin.clone())
    }
}

/// Null holds keys as soon as somebody adds them.
fn hold(node: &mut Node) {
    if let Data::Scalar(Value::Null) = node.data {
        node.data = Data::Map(Map::default());
    }
}

fn set(tree: &mut Node, mut ready: Ready) -> Applied {
    let Some(value) = ready.value.take() else { return Ok(()) };
    // `unknown` and `make` look at the origin, so the value goes back while the way is walked.
    ready.value = Some(Node::scalar(Value::Null, value.origin.clone()));
    let strict = ready.action == Action::Change;
    let collection = matches!(value.data, Data::Map(_) | Data::List(_));
    let depth = ready.key.len().saturating_sub(1);
    let (parent, last) = ready.parent(tree, !strict)?;
    match parent.child_mut(last) {
        Some(present) => {
            let taken = !matches!(present.data, Data::Scalar(Value::Null)) && !collection;
            if ready.action == Action::Add && taken {
                let message = format!("`{}` is in the recipe already", ready.spelled());
                let place = present.origin.place().cloned();
                let bare = ready.text.trim_start_matches('+');
                let help = format!("to change it: {0}; to add or change: ++{0}", shown(bare));
                let problem = ready.problem("override::exists", message);
                return Err(Box::new(problem.with(place.as_ref(), "here").help(help)));
            }
            put(present, value, strict, &ready)
        }
        None if strict => Err(ready.unknown(parent, depth)),
        None => match &mut parent.data {
            Data::Map(map) => {
                let key = Some(ready.key_place.clone());
                map.insert(Value::String(last.to_owned()), Node { key, ..value });
                Ok(())
            }
            _ => Err(ready.unknown(parent, depth)),
        },
    }
}

/// Puts a value in the place of another: a mapping goes into a mapping, all else replaces it.
fn put(present: &mut Node, value: Node, strict: bool, ready: &Ready) -> Applied {
    let both = matches!((&present.data, &value.data), (Data::Map(_), Data::Map(_)));
    if !both {
        let key = present.key.take();
        *present = Node { key: key.or(value.key), ..value };
        return Ok(());
    }
    if strict {
        let inside = path_of(&ready.key);
        if let Some((path, near)) = new_key(present, &value, &inside) {
            let help = advice(near, &path, &ready.text);
            let message = format!("`{path}` is not in the recipe");
            let problem = ready.problem("override::unknown_key", message);
            return Err(Box::new(problem.help_if(help)));
        }
    }
    merge(present, value);
    Ok(())
}

fn path_of(key: &[String]) -> Path {
    let step =
        |step: &String| list_index(step).map_or_else(|| Step::Key(step.clone()), Step::Index);
    Path(key.iter().map(step).collect())
}

/// What to do about a key that the recipe lacks: `+` adds only what the schema knows.
fn advice(near: Option<String>, path: &Path, text: &str) -> Option<String> {
    if keys::is_known(path) {
        let near = near.map(|near| format!("{near} ")).unwrap_or_default();
        return Some(format!("{near}to add it: +{}", shown(text)));
    }
    near.or_else(|| meant(path)).or_else(|| Some("`sft-run schema --keys` lists every key".into()))
}

/// `did you mean …?` with the whole key, its first unknown step replaced by a known one.
fn meant(path: &Path) -> Option<String> {
    let known = |count: usize| keys::is_known(&Path(path.0[..count].to_vec()));
    let at = (0..path.0.len()).find(|at| !known(at + 1))?;
    let (section, Step::Key(step)) = (Path(path.0[..at].to_vec()), path.0.get(at)?) else {
        return None;
    };
    let names = keys::below(&section);
    let best = nearest(step, names.iter().map(String::as_str))?;
    let rest = path.0.get(at + 1..).unwrap_or_default();
    let whole = section.0.iter().cloned().chain([Step::Key(best.to_owned())]);
    let whole = Path(whole.chain(rest.iter().cloned()).collect());
    Some(format!("did you mean `{whole}`?"))
}

/// The first key of a value that the present mapping lacks.
fn new_key(present: &Node, value: &Node, path: &Path) -> Option<(Path, Option<String>)> {
    let (Data::Map(known), Data::Map(given)) = (&present.data, &value.data) else { return None };
    for (key, item) in given.iter() {
        let text = key_text(key);
        match known.get(&text) {
            None => return Some((path.key(&text), did_you_mean(&text, known.keys()))),
            Some(below) => {
                if let Some(found) = new_key(below, item, &path.key(&text)) {
                    return Some(found);
                }
            }
        }
    }
    None
}

/// Lays one tree over another: mappings are merged key by key, all else is replaced.
pub(crate) fn merge(below: &mut Node, above: Node) {
    let key = below.key.take();
    match (&mut below.data, above.data) {
        (Data::Map(known), Data::Map(given)) => {
            for (key, item) in given.into_entries() {
                match known.get_mut(&key_text(&key)) {
                    Some(present) => {
                        let key = item.key.clone();
                        merge(present, item);
                        present.key = key.or(present.key.take());
                    }
                    None => known.insert(key, item),
                }
            }
            below.key = key;
        }
        (_, data) => *below = Node { data, key: above.key.or(key), origin: above.origin },
    }
}

fn delete(tree: &mut Node, ready: &Ready) -> Applied {
    let (parent, last) = ready.parent(tree, false)?;
    let depth = ready.key.len().saturating_sub(1);
    let Some(present) = parent.child(last) else { return Err(ready.unknown(parent, depth)) };
    if let Some(wanted) = &ready.value {
        let (is, wanted) = (present.to_value(), wanted.to_value());
        if !same(&is, &wanted) {
            let (is, wanted) = (python_repr(&is), python_repr(&wanted));
            let message = format!(
                "the value of `{}` is {} and not {}",
                ready.spelled(),
                shown(&is),
                shown(&wanted)
            );
            let place = present.origin.place().cloned();
            let problem = ready.problem("override::delete", message);
            return Err(Box::new(problem.with(place.as_ref(), "this value")));
        }
    }
    match &mut parent.data {
        Data::Map(map) => {
            map.remove(last);
            Ok(())
        }
        Data::List(_) if list_index(last).is_some() => {
            let message = "an item of a list cannot be deleted".to_owned();
            let problem = ready.problem("override::delete", message);
            Err(Box::new(problem.help("write the list without it: key=[item,item]")))
        }
        _ => Err(ready.unknown(parent, depth)),
    }
}

/// Equal as Python compares: 1 and 1.0 are the same.
fn same(left: &Value, right: &Value) -> bool {
    match (left.as_f64(), right.as_f64()) {
        (Some(left), Some(right)) => left.total_cmp(&right).is_eq(),
        _ => left == right,
    }
}

fn append(tree: &mut Node, mut ready: Ready) -> Applied {
    let value = ready.value.take().map(|value| value.data);
    let (parent, last) = ready.parent(tree, false)?;
    let depth = ready.key.len().saturating_sub(1);
    if parent.child(last).is_none() {
        return Err(ready.unknown(parent, depth));
    }
    let present = parent.child_mut(last).map(|node| &mut node.data);
    if let (Some(Data::List(items)), Some(Data::List(more))) = (present, value) {
        items.extend(more);
        return Ok(());
    }
    let message = format!("`{}+=` adds the items of a list to a list", ready.spelled());
    let problem = ready.problem("override::append", message);
    Err(Box::new(problem.help(format!("write {}+=[item]", ready.spelled()))))
}
