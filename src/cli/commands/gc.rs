//! `sft-run gc`: removes stage outputs that nothing refers to.

use crate::artifacts::{Collect, Lock, Store};
use crate::cli::arguments::GcArguments;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::open::cache_folder;
use crate::cli::session::Session;
use crate::report::numbers::bytes;
use serde_json::json;
use std::path::Path;

/// Whether a recipe of the same name stands beside the lock file `path`.
fn belongs_to_a_recipe(path: &Path) -> bool {
    ["yaml", "yml", "yaml.j2"].iter().any(|ending| path.with_extension(ending).is_file())
}

/// Runs the command.
pub(in crate::cli) fn run(session: &Session, arguments: &GcArguments) -> Result<Exit, Failure> {
    let given = &arguments.recipe;
    // The parent of a bare file name is the empty path, which no folder can be read at.
    let parent = given.parent().filter(|parent| !parent.as_os_str().is_empty());
    let folder = if given.is_dir() { given } else { parent.unwrap_or(Path::new(".")) };
    let root = cache_folder(session, arguments.cache_dir.as_deref(), folder);
    if !root.is_dir() {
        let help = "name the recipe or its folder, or the cache with --cache-dir";
        return Err(Failure::wrong(format!("there is no cache in `{}`", root.display()), help));
    }
    let store = Store::open(&root);
    let mut keep = store.used_by_last_runs()?;
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.extension().is_none_or(|ending| ending != "lock") {
            continue;
        }
        let lock = match Lock::read(&path) {
            Ok(lock) => lock,
            // Other programs have lock files too; a recipe's own must be readable.
            Err(_) if !belongs_to_a_recipe(&path) => None,
            Err(error) => return Err(error.into()),
        };
        if let Some(lock) = lock {
            keep.extend(lock.stages.values().map(|stage| stage.fingerprint));
        }
    }
    let collected =
        store.collect(&keep, Collect { dry: arguments.dry_run, partial: arguments.partial })?;
    if session.terminal.json {
        let document = json!({
            "cache": root,
            "removed": collected.removed,
            "bytes": collected.bytes,
            "kept": collected.kept,
            "busy": collected.busy,
            "resumable": collected.resumable,
            "dry_run": arguments.dry_run,
        });
        session.terminal.result(&format!("{document:#}"));
        return Ok(Exit::Done);
    }
    let verb = if arguments.dry_run { "would remove" } else { "removed" };
    let mut text: String =
        collected.removed.iter().map(|name| format!("  {verb} {name}\n")).collect();
    text += &collected
        .busy
        .iter()
        .map(|name| format!("  left {name}: another process uses it\n"))
        .collect::<String>();
    text += &collected
        .resumable
        .iter()
        .map(|name| {
            format!(
                "  left {name}: an interrupted training goes on from it (--partial removes it)\n"
            )
        })
        .collect::<String>();
    let (count, kept) = (collected.removed.len(), collected.kept);
    text += &format!(
        "{verb} {count} outputs ({}), {kept} stay: {}",
        bytes(collected.bytes),
        root.display()
    );
    session.terminal.result(&text);
    Ok(Exit::Done)
}
