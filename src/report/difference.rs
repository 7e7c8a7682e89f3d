//! What differs between two resolved recipes, or two environments, value by value.

use serde::Serialize;
use serde_yaml::Value;
use std::collections::BTreeMap;

/// A value that two runs do not share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Its path, such as `model.optim.lr`.
    pub path: String,
    /// In the first run; none when it is not there.
    pub old: Option<String>,
    /// In the second.
    pub new: Option<String>,
}

/// The values of two recipes that differ, by path.
pub fn of_yaml(first: &str, second: &str) -> Vec<Difference> {
    of_values(&values(first), &values(second))
}

/// The values that differ, by name.
pub fn of_values(
    first: &BTreeMap<String, String>,
    second: &BTreeMap<String, String>,
) -> Vec<Difference> {
    let paths: std::collections::BTreeSet<&String> = first.keys().chain(second.keys()).collect();
    let pair = |path: &&String| (first.get(*path), second.get(*path));
    let differing = paths.into_iter().filter(|path| {
        let (old, new) = pair(path);
        old != new
    });
    differing
        .map(|path| Difference {
            path: path.clone(),
            old: first.get(path).cloned(),
            new: second.get(path).cloned(),
        })
        .collect()
}

/// The values of a recipe by path, such as `model.optim.betas.0`; none where the text is no YAML.
pub fn values(text: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    if let Ok(value) = serde_yaml::from_str(text) {
        flatten("", &value, &mut found);
    }
    found
}

fn flatten(path: &str, value: &Value, found: &mut BTreeMap<String, String>) {
    let below = |name: &str| match path {
        "" => name.to_owned(),
        path => format!("{path}.{name}"),
    };
    match value {
        Value::Mapping(entries) if !entries.is_empty() => {
            for (key, value) in entries {
                flatten(&below(&written(key)), value, found);
            }
        }
        Value::Sequence(items) if !items.is_empty() => {
            for (index, item) in items.iter().enumerate() {
                flatten(&below(&index.to_string()), item, found);
            }
        }
        scalar => {
            found.insert(path.to_owned(), written(scalar));
        }
    }
}

/// The value as YAML writes it, without the line end.
fn written(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => serde_yaml::to_string(other).unwrap_or_default().trim_end().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changed_values_are_named_by_path() {
        let first = "model:\n  optim:\n    lr: 0.1\n    betas:\n    - 0.9\n    - 0.95\n  seed: 1\nstages:\n  a:\n    tasks:\n    - name: x\n      share: 1\n    - name: y\n";
        let second = first
            .replace("lr: 0.1", "lr: 0.2")
            .replace("0.95", "0.99")
            .replace("name: y", "name: z");
        let second = second.replace("  seed: 1\n", "");
        let paths: Vec<_> = of_yaml(first, &second).into_iter().map(|one| one.path).collect();
        assert_eq!(
            paths,
            ["model.optim.betas.1", "model.optim.lr", "model.seed", "stages.a.tasks.1.name"]
        );
        assert_eq!(of_yaml(first, first), []);
    }
}
