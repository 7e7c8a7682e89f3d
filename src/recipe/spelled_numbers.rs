//! Numbers that YAML 1.1 reads otherwise than they look: octal (`017`) and base 60 (`12:30:45`).

use super::findings::Findings;
use super::path::{Path, Step};
use super::place::Origin;
use super::resolve::Resolved;
use super::tree::key_text;
use serde_yaml::Value;

/// A lint for every such number; the command line reads its own literals, and those as texts.
pub(super) fn check(resolved: &Resolved, findings: &mut Findings) {
    for (path, marks) in &resolved.marks {
        let Origin::File(place) = &marks.value else { continue };
        let written = place.file.text.get(place.span.clone()).unwrap_or_default();
        let Some(rule) = surprising(written) else { continue };
        let Some(Value::Number(number)) = value_at(&resolved.values, path) else { continue };
        findings
            .lint(
                "lint::spelled_number",
                path.clone(),
                format!("{number} here"),
                format!("`{written}` is the number {number}: YAML 1.1 reads {rule}"),
            )
            .help(format!("write {number}, or '{written}' for the text"));
    }
}

fn value_at<'v>(values: &'v Value, path: &Path) -> Option<&'v Value> {
    path.0.iter().try_fold(values, |value, step| match step {
        Step::Index(index) => value.get(*index),
        Step::Key(key) => {
            value.as_mapping()?.iter().find(|(own, _)| key_text(own) == *key).map(|(_, item)| item)
        }
    })
}

/// The rule that makes a number of a word in an unusual way.
fn surprising(written: &str) -> Option<&'static str> {
    let digits = written.trim_start_matches(['-', '+']);
    let octal = digits.len() > 1 && digits.starts_with('0');
    if octal && digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'_') {
        return Some("digits after a leading zero as octal");
    }
    let sixty = digits.contains(':') && digits.starts_with(|first: char| first.is_ascii_digit());
    sixty.then_some("digits with colons between as base 60")
}
