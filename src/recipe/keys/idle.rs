//! Keys that a recipe sets and that have no effect here: told to people by reason, and as JSON.

use super::{Status, all, find, leaves};
use crate::recipe::path::Path;
use crate::recipe::place::{Marks, Place};
use crate::recipe::resolve::Resolved;
use serde_json::{Value as Json, json};

/// A key that is set and changes nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct Idle {
    /// Its path in the recipe.
    pub path: Path,
    /// Why it changes nothing.
    pub reason: &'static str,
    /// Where it was written.
    pub place: Option<Place>,
}

/// The keys of a recipe that have no effect here, in the order of the recipe; null sets nothing.
pub(in crate::recipe) fn idle(resolved: &Resolved) -> Vec<Idle> {
    let table = all();
    let mut found = Vec::new();
    for (path, value) in leaves(&resolved.values) {
        let status = find(&table, &path).map(|key| key.status);
        let Some(Status::NoEffect(reason)) = status.filter(|_| !value.is_null()) else { continue };
        let marks = resolved.marks.get(&path);
        let place = marks.and_then(|marks: &Marks| marks.key.as_ref().or(marks.value.place()));
        found.push(Idle { place: place.cloned(), path, reason });
    }
    found
}

/// Keys with one reason together, in the order of their first ones.
pub fn grouped(keys: &[Idle]) -> Vec<(&'static str, Vec<String>)> {
    let mut groups: Vec<(&'static str, Vec<String>)> = Vec::new();
    for key in keys {
        let name = key.path.to_string();
        match groups.iter_mut().find(|(reason, _)| *reason == key.reason) {
            Some((_, names)) => names.push(name),
            None => groups.push((key.reason, vec![name])),
        }
    }
    groups
}

/// The keys as a JSON array: `path`, `reason`, `file`, `line`, `column`.
pub fn idle_json(keys: &[Idle]) -> Json {
    let one = |key: &Idle| {
        let place = key.place.as_ref();
        let (line, column) = place.map(Place::line_and_column).unzip();
        json!({
            "path": key.path.to_string(), "reason": key.reason,
            "file": place.map(|place| &place.file.name), "line": line, "column": column,
        })
    };
    keys.iter().map(one).collect()
}
