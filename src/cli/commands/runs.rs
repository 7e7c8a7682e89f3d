//! `sft-run runs`: the runs below a folder.

use super::status::last_run;
use crate::cli::arguments::RunsArguments;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::session::Session;
use crate::report::numbers::{duration, quantity};
use crate::report::summary::Summary;
use crate::report::tables;
use serde_json::json;
use std::path::{Path, PathBuf};

/// How deep run folders may lie: `exp_dir/name/version/run_0`.
const DEPTH: usize = 4;

/// Runs the command.
pub(in crate::cli) fn run(session: &Session, arguments: &RunsArguments) -> Result<Exit, Failure> {
    if !arguments.folder.is_dir() {
        let message = format!("there is no folder `{}`", arguments.folder.display());
        return Err(Failure::wrong(
            message,
            "run a recipe first, or name the folder in which its runs lie",
        ));
    }
    let mut runs = Vec::new();
    find(&arguments.folder, DEPTH, &mut runs);
    runs.sort_by(|(_, first), (_, second)| first.started.cmp(&second.started));
    if session.terminal.json {
        let list: Vec<_> = runs
            .iter()
            .map(|(folder, summary)| json!({"folder": folder, "summary": summary}))
            .collect();
        session.terminal.result(&format!("{:#}", json!(list)));
    } else if runs.is_empty() {
        session.terminal.result(&format!("no runs in {}", arguments.folder.display()));
    } else {
        let rows = runs.iter().map(|(folder, summary)| row(folder, summary)).collect();
        session
            .terminal
            .result(&tables::words(&["run", "started", "state", "time", "metrics"], rows));
    }
    Ok(Exit::Done)
}

fn find(folder: &Path, depth: usize, runs: &mut Vec<(PathBuf, Summary)>) {
    if let Some(summary) = last_run(folder) {
        runs.push((folder.to_owned(), summary));
    }
    if depth == 0 {
        return;
    }
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            find(&entry.path(), depth - 1, runs);
        }
    }
}

fn row(folder: &Path, summary: &Summary) -> Vec<String> {
    // The last stage with metrics is the one that a run is about.
    let metrics = summary.stages.iter().rev().find(|stage| !stage.metrics.is_empty());
    let metrics = metrics.iter().flat_map(|stage| &stage.metrics);
    let metrics: Vec<String> =
        metrics.map(|(name, number)| format!("{name} {}", quantity(*number))).collect();
    let (started, state) = (summary.started.clone(), summary.state.words().to_owned());
    vec![
        folder.display().to_string(),
        started,
        state,
        duration(summary.seconds),
        metrics.join("  "),
    ]
}
