//! `sft-run runs`: the runs below a folder.

use crate::base::suggest;
use crate::cli::arguments::RunsArguments;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::run_folder::RECIPE;
use crate::cli::session::Session;
use crate::cli::unfinished;
use crate::report::runs::{self, ListedRun};
use crate::report::{summary, tables};
use serde_json::json;
use std::collections::BTreeSet;
use std::path::Path;

/// How deep run folders may lie: `exp_dir/name/version/run_0`.
const DEPTH: usize = 4;

/// Runs the command.
pub(in crate::cli) fn run(session: &Session, arguments: &RunsArguments) -> Result<Exit, Failure> {
    let folder = arguments.folder.display();
    if !arguments.folder.is_dir() {
        let help = "run a recipe first, or name the folder in which its runs lie";
        return Err(Failure::wrong(format!("there is no folder `{folder}`"), help));
    }
    let mut listed = Vec::new();
    find(&arguments.folder, DEPTH, &mut listed);
    if listed.is_empty() && !session.terminal.json {
        session.terminal.result(&format!("no runs in {folder}"));
        return Ok(Exit::Done);
    }
    let known = runs::keys(&listed);
    let asked = arguments.conditions.iter().map(runs::Condition::key);
    for key in asked.chain(arguments.sort.as_deref()).filter(|_| !listed.is_empty()) {
        is_known(key, &known)?;
    }
    listed.retain(|run| arguments.conditions.iter().all(|condition| condition.holds(run)));
    runs::newest_first(&mut listed);
    match arguments.sort.as_deref().filter(|key| *key != "started") {
        Some(key) => runs::sort(&mut listed, key, arguments.reverse),
        None if arguments.reverse => listed.reverse(),
        None => {}
    }
    show(session, arguments, &listed);
    Ok(Exit::Done)
}

fn is_known(key: &str, known: &BTreeSet<String>) -> Result<(), Failure> {
    if known.contains(key) {
        return Ok(());
    }
    let near = suggest::did_you_mean(key, known.iter().map(String::as_str));
    let near = near.map(|near| format!("{near} ")).unwrap_or_default();
    Err(Failure::wrong(
        format!("no run has `{key}`"),
        format!(
            "{near}A key is name, recipe, started, state, time, git_commit, a metric, or a setting such as model.optim.lr"
        ),
    ))
}

fn show(session: &Session, arguments: &RunsArguments, listed: &[ListedRun]) {
    let terminal = &session.terminal;
    if terminal.json {
        let list: Vec<_> = listed
            .iter()
            .map(|run| json!({"folder": run.folder, "summary": run.summary, "progress": run.progress, "settings": run.settings}))
            .collect();
        terminal.result(&format!("{:#}", json!(list)));
    } else if listed.is_empty() {
        terminal.result("no run is so");
    } else {
        let (header, rows) = runs::table(listed, arguments.settings, arguments.sort.as_deref());
        let header: Vec<&str> = header.iter().map(String::as_str).collect();
        terminal.result(&tables::words_within(terminal.table_width(), &header, rows));
    }
}

fn find(folder: &Path, depth: usize, listed: &mut Vec<ListedRun>) {
    let (summary, progress) = match unfinished::of(folder) {
        Some(run) => (Some(run.summary), Some(run.progress)),
        None => (summary::read(folder), None),
    };
    if let Some(summary) = summary {
        // A run that was refused before it began has no recipe.
        let recipe = std::fs::read_to_string(folder.join(RECIPE)).unwrap_or_default();
        let settings = runs::settings(&recipe);
        listed.push(ListedRun { folder: folder.to_owned(), summary, progress, settings });
    }
    if depth == 0 {
        return;
    }
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            find(&entry.path(), depth - 1, listed);
        }
    }
}
