//! What is usually meant by a text that is no YAML.

/// Whether the first two lines are a JSON object each.
pub(super) fn looks_like_rows(text: &str) -> bool {
    let lines = text.lines().filter(|line| !line.trim().is_empty()).take(2);
    let is_row = |line: &&str| serde_json::from_str::<serde_json::Map<_, _>>(line).is_ok();
    lines.filter(is_row).count() == 2
}

/// Advice for a line with braces that YAML takes for its own.
pub(super) fn braces(line: &str) -> Option<String> {
    let help = if line.contains("${{") {
        "put the whole value in quotes: \"${{ … }}\""
    } else if line.contains("{{") {
        "YAML reads `{{` as a mapping: put the value in quotes; an expression of a recipe is `${{ … }}`"
    } else if line.contains("${") {
        "put the whole value in quotes: \"${…}\""
    } else {
        return None;
    };
    Some(help.to_owned())
}
