//! What differs between two resolved recipes, value by value.

use serde::Serialize;
use std::collections::BTreeMap;

/// A value that two recipes do not share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Its path, such as `model.optim.lr`.
    pub path: String,
    /// In the first recipe; none when it is not there.
    pub old: Option<String>,
    /// In the second.
    pub new: Option<String>,
}

/// The values that differ, by path.
pub fn of_yaml(first: &str, second: &str) -> Vec<Difference> {
    let (first, second) = (values(first), values(second));
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

/// Values by path of a text in block style, as `recipe.resolved.yaml` is: a line per value,
/// deeper levels indented. List items count from 0; their dash stands at their parent's depth.
fn values(text: &str) -> BTreeMap<String, String> {
    let mut values = BTreeMap::new();
    let mut open: Vec<(usize, String)> = Vec::new();
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let mut depth = line.len() - line.trim_start().len();
        let mut rest = line.trim_start();
        while let Some(item) = rest.strip_prefix("- ").or_else(|| (rest == "-").then_some("")) {
            // A dash may stand as deep as its list's key.
            open.retain(|(at, name)| {
                *at < depth || (*at == depth && !name.starts_with(char::is_numeric))
            });
            let parent = join(&open);
            let count = counts.entry(parent).or_insert(0);
            open.push((depth, count.to_string()));
            *count += 1;
            depth += 2;
            rest = item.trim_start();
        }
        match rest.split_once(':').filter(|(_, after)| after.is_empty() || after.starts_with(' ')) {
            Some((key, value)) => {
                open.retain(|(at, _)| *at < depth);
                open.push((depth, key.to_owned()));
                if !value.trim().is_empty() {
                    values.insert(join(&open), value.trim().to_owned());
                }
            }
            None if !rest.is_empty() => {
                let value = values.entry(join(&open)).or_insert_with(String::new);
                let longer = format!("{value} {rest}");
                longer.trim().clone_into(value);
            }
            None => {}
        }
    }
    values
}

fn join(open: &[(usize, String)]) -> String {
    open.iter().map(|(_, name)| name.as_str()).collect::<Vec<_>>().join(".")
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
