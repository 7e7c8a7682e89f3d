//! How keys without effect are told: a list by reason, one line, or a part of a JSON document.

use super::session::Session;
use super::terminal::Paint;
use crate::recipe::keys::{Idle, grouped, idle_json};
use crate::recipe::{self, CheckedRecipe};
use serde_json::Value;
use std::path::Path;

/// Lists the keys by reason on stdout; silent when there are none.
pub(super) fn list(session: &Session, checked: &CheckedRecipe) {
    let keys = recipe::no_effect(checked);
    if keys.is_empty() {
        return;
    }
    let terminal = &session.terminal;
    terminal.line(&format!("  {} here:", counted(&keys)));
    for (reason, names) in grouped(&keys) {
        terminal.line(&format!("  {} {reason}", terminal.paint(Paint::Dim, "·")));
        for line in wrapped(&names, terminal.width.saturating_sub(6)) {
            terminal.line(&terminal.paint(Paint::Dim, &format!("      {line}")));
        }
    }
}

/// Says on stderr how many there are and which command lists them; silent when there are none.
pub(super) fn note(session: &Session, checked: &CheckedRecipe, recipe: &Path) {
    let terminal = &session.terminal;
    let keys = recipe::no_effect(checked);
    if keys.is_empty() || terminal.quiet || terminal.json {
        return;
    }
    let command = format!("sft-run validate {}", recipe.display());
    let lists = if keys.len() == 1 { "names it" } else { "lists them" };
    let text = format!("{} here (`{command}` {lists})", counted(&keys));
    terminal.error(&terminal.paint_error(Paint::Dim, &text));
}

/// `document` with the keys under `no_effect`.
pub(super) fn with_keys(mut document: Value, checked: &CheckedRecipe) -> Value {
    if let Some(object) = document.as_object_mut() {
        object.insert("no_effect".to_owned(), idle_json(&recipe::no_effect(checked)));
    }
    document
}

fn counted(keys: &[Idle]) -> String {
    match keys.len() {
        1 => "1 key has no effect".to_owned(),
        many => format!("{many} keys have no effect"),
    }
}

/// Names with commas between, in lines of at most `width` columns where that is possible.
fn wrapped(names: &[String], width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for name in names {
        match lines.last_mut().filter(|line| line.len() + name.len() + 3 <= width) {
            Some(line) => {
                line.push_str(", ");
                line.push_str(name);
            }
            None => lines.push(name.clone()),
        }
    }
    let last = lines.len().saturating_sub(1);
    for line in lines.iter_mut().take(last) {
        line.push(',');
    }
    lines
}
