//! The status of every key of a recipe: honoured, without effect here, or refused, with the reason.

mod idle;
mod refusals;
mod table;

use super::path::{Path, Step};
use super::problem::Problem;
use super::resolve::Resolved;
use super::schema;
use refusals::VALUES;
use serde_json::{Value as Json, json};
use serde_yaml::Value;
use std::collections::BTreeSet;
use std::fmt::Write;
use table::GROUPS;

pub(super) use idle::idle;
pub use idle::{Idle, grouped, idle_json};
pub use refusals::When;
pub use table::Status;

/// One key with its status.
#[derive(Clone, Debug, PartialEq)]
pub struct Key {
    /// Its path; `NAME` stands for a stage's name, `[]` for an item of a list.
    pub path: String,
    /// What we do with it.
    pub status: Status,
    /// Values that are refused, with the reason.
    pub refused: Option<(&'static When, &'static str)>,
}

/// The table, in the order in which it is written.
pub fn all() -> Vec<Key> {
    let groups = GROUPS.iter().flat_map(|group| {
        group.keys.split_whitespace().map(move |key| (join(group.under, key), group.status))
    });
    let refused = |path: &str| {
        let entry = VALUES.iter().find(|(known, _, _)| *known == path)?;
        Some((&entry.1, entry.2))
    };
    groups.map(|(path, status)| Key { refused: refused(&path), path, status }).collect()
}

fn join(section: &str, key: &str) -> String {
    if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") }
}

/// Every key that the schema allows, sections left out.
pub fn in_schema() -> BTreeSet<String> {
    let schema = schema::strict();
    let mut found = BTreeSet::new();
    walk(&schema, &schema, "", &mut found);
    found
}

fn walk(root: &Json, node: &Json, at: &str, found: &mut BTreeSet<String>) {
    if let Some(name) = node.get("$ref").and_then(Json::as_str) {
        // A stage's own `trainer` and `model` have the keys of the recipe's.
        if !name.ends_with("/Overlay") {
            let target = name.strip_prefix('#').and_then(|pointer| root.pointer(pointer));
            return target.map_or((), |target| walk(root, target, at, found));
        }
    }
    let before = found.len();
    let keys = node.get("properties").and_then(Json::as_object);
    for (key, inner) in keys.into_iter().flatten() {
        walk(root, inner, &join(at, key), found);
    }
    let choices = node.get("anyOf").and_then(Json::as_array);
    for inner in choices.into_iter().flatten().filter(|inner| is_section(inner)) {
        walk(root, inner, at, found);
    }
    let has_section = |items: &&Json| {
        let choices = items.get("anyOf").and_then(Json::as_array);
        is_section(items) || choices.into_iter().flatten().any(is_section)
    };
    if let Some(items) = node.get("items").filter(has_section) {
        walk(root, items, &format!("{at}[]"), found);
    }
    if let Some(named) = node.get("additionalProperties").filter(|inner| inner.is_object()) {
        walk(root, named, &join(at, "NAME"), found);
    }
    if found.len() == before && !at.is_empty() {
        found.insert(at.to_owned());
    }
}

fn is_section(node: &Json) -> bool {
    node.get("$ref").is_some() || node.get("properties").is_some()
}

/// Problems for keys that are refused at the value they have.
pub(super) fn refused(resolved: &Resolved) -> Vec<Problem> {
    let table = all();
    let mut problems = Vec::new();
    for (path, value) in leaves(&resolved.values) {
        let Some(key) = find(&table, &path) else { continue };
        let Some((when, reason)) = key.refused.filter(|(when, _)| when.holds(value)) else {
            continue;
        };
        let place = resolved.marks.get(&path).and_then(|marks| marks.value.place());
        let message = when.message(&path, value);
        problems.push(
            Problem::error("recipe::refused", message)
                .at(place, "refused")
                .help(reason)
                .about(path),
        );
    }
    problems
}

/// Whether the schema allows a key, or a section, at a path.
pub(super) fn is_known(path: &Path) -> bool {
    let name = normal(path);
    all().iter().any(|key| lies_on(&name, &key.path) || lies_on(&key.path, &name))
}

/// The names of the keys right below a section.
pub(super) fn below(section: &Path) -> BTreeSet<String> {
    let section = normal(section);
    let steps = section.split('.').filter(|step| !step.is_empty()).count();
    let table = all().into_iter().filter(|key| lies_on(&section, &key.path));
    let next = table.filter_map(|key| Some(key.path.split('.').nth(steps)?.to_owned()));
    next.map(|name| name.trim_end_matches("[]").to_owned()).filter(|name| name != "NAME").collect()
}

/// Whether the way to `below` begins with all of `above`; `NAME` is any name.
fn lies_on(above: &str, below: &str) -> bool {
    let mut steps = below.split('.');
    above.split('.').filter(|step| !step.is_empty()).all(|step| {
        steps.next().is_some_and(|other| {
            let same = step.trim_end_matches("[]") == other.trim_end_matches("[]");
            same || [step, other].contains(&"NAME")
        })
    })
}

fn find<'a>(table: &'a [Key], path: &Path) -> Option<&'a Key> {
    let name = normal(path);
    table.iter().find(|key| key.path == name)
}

/// A value's path in the table's form.
fn normal(path: &Path) -> String {
    let steps = match path.0.as_slice() {
        // `stages.NAME.train.with.model.…` is a setting of `model`.
        [Step::Key(stages), _, Step::Key(_), Step::Key(with), rest @ ..]
            if stages == "stages" && with == "with" =>
        {
            rest
        }
        all => all,
    };
    let mut text = String::new();
    for (at, step) in steps.iter().enumerate() {
        let stage = at == 1 && steps.first() == Some(&Step::Key("stages".to_owned()));
        match step {
            Step::Index(_) => text.push_str("[]"),
            Step::Key(_) if stage => text.push_str(".NAME"),
            Step::Key(key) if text.is_empty() => text.push_str(key),
            Step::Key(key) => {
                text.push('.');
                text.push_str(key);
            }
        }
    }
    text
}

/// Every value with its path; sections come before what they hold.
fn leaves(values: &Value) -> Vec<(Path, &Value)> {
    let mut found = Vec::new();
    collect(values, &Path::default(), &mut found);
    found
}

fn collect<'a>(value: &'a Value, at: &Path, found: &mut Vec<(Path, &'a Value)>) {
    if !at.0.is_empty() {
        found.push((at.clone(), value));
    }
    match value {
        Value::Mapping(mapping) => {
            for (key, inner) in mapping {
                collect(inner, &at.key(key.as_str().unwrap_or_default()), found);
            }
        }
        Value::Sequence(items) => {
            for (index, inner) in items.iter().enumerate() {
                collect(inner, &at.index(index), found);
            }
        }
        _ => {}
    }
}

/// The listing for people, as Markdown.
pub fn listing() -> String {
    let mut text = String::from(
        "# Keys of a recipe\n\n\
         Made from the program (`sft-run schema --keys`); a key that is not here is an error.\n\
         *Honoured*: it changes what is done. *No effect*: it may stand in a recipe, is reported, and changes nothing.\n\
         *Refused*: the recipe is an error while it is set. Null is always fine.\n\n\
         | key | status | why |\n|---|---|---|\n",
    );
    for key in all() {
        let (status, mut why) = match key.status {
            Status::Honoured => ("honoured", String::new()),
            Status::NoEffect(reason) => ("no effect", reason.to_owned()),
            Status::Refused => ("refused", String::new()),
        };
        if let Some((when, reason)) = key.refused {
            let more = if key.status == Status::Refused {
                format!("{}: {reason}", when.words())
            } else {
                format!("refused {}: {reason}", when.words())
            };
            why = if why.is_empty() { more } else { format!("{why}; {more}") };
        }
        // Writing to a string cannot fail.
        let _ = writeln!(text, "| `{}` | {status} | {} |", key.path, why.replace('|', "\\|"));
    }
    text
}

/// The listing for programs.
pub fn listing_json() -> Json {
    let entry = |key: Key| {
        let (status, reason) = match key.status {
            Status::Honoured => ("honoured", None),
            Status::NoEffect(reason) => ("no_effect", Some(reason)),
            Status::Refused => ("refused", None),
        };
        let refused = key.refused.map(|(when, why)| json!({"when": when.words(), "reason": why}));
        json!({"key": key.path, "status": status, "reason": reason, "refused": refused})
    };
    all().into_iter().map(entry).collect()
}

/// Paths that have refused values.
pub fn refusals() -> impl Iterator<Item = &'static str> {
    VALUES.iter().map(|(path, _, _)| *path)
}
