//! `sft-run status`: which stages are fresh, stale (and why) or missing, and how the last run ended or
//! how far it is.

use crate::cli::arguments::RecipeArguments;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::open;
use crate::cli::session::Session;
use crate::cli::terminal::Paint;
use crate::cli::unfinished::{self, Unfinished};
use crate::report::numbers::{count, duration};
use crate::report::summary::{self, Summary};
use crate::report::{metrics_jsonl, tables};
use crate::runner::{self, Decision, Reason, StagePreview};
use serde_json::json;
use std::path::Path;

/// Runs the command.
pub(in crate::cli) fn run(session: &Session, arguments: &RecipeArguments) -> Result<Exit, Failure> {
    let opened = open::plan(session, arguments)?;
    let preview = runner::preview(&opened.plan, &opened.settings(session))?;
    let exit = if preview.is_up_to_date() { Exit::Done } else { Exit::Work };
    let folder = opened.plan.run_folder();
    let (last, unfinished) = (summary::read(folder), unfinished::of(folder));
    let terminal = &session.terminal;
    if terminal.json {
        let begun = unfinished.as_ref();
        let document = json!({
            "run_folder": folder, "stages": preview.stages, "last_run": last,
            "unfinished": begun.map(|run| json!({"summary": run.summary, "progress": run.progress})),
        });
        terminal.result(&format!("{document:#}"));
        return Ok(exit);
    }
    let rows = preview.stages.iter().map(|stage| row(stage, &opened.store)).collect();
    let heads = ["stage", "kind", "state", "fingerprint", "why"];
    let table = tables::words_within(terminal.table_width(), &heads, rows);
    let heading = terminal.paint(Paint::Bold, opened.plan.name());
    let last = match &unfinished {
        Some(run) => unfinished_line(folder, run),
        None => last_line(folder, last.as_ref()),
    };
    terminal.result(&format!("{heading}\n{table}\n{last}"));
    Ok(exit)
}

fn row(stage: &StagePreview, store: &crate::artifacts::Store) -> Vec<String> {
    let state = match &stage.decision {
        Decision::UpToDate => "fresh",
        Decision::Restore => "fresh (in the cache)",
        Decision::Run(_) if stage.fingerprint.is_some_and(|name| store.is_in_work(name)) => {
            "running"
        }
        Decision::Run(_) if stage.fingerprint.is_some_and(|name| store.has_partial(name)) => {
            "interrupted"
        }
        Decision::Run(reasons) => match reasons.as_slice() {
            [Reason::New | Reason::OutputMissing] => "missing",
            _ => "stale",
        },
    };
    let why = match &stage.decision {
        Decision::Run(reasons) => {
            reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
        }
        Decision::UpToDate | Decision::Restore => String::new(),
    };
    let fingerprint = stage.fingerprint.map_or("–".to_owned(), |name| name.short());
    vec![stage.stage.clone(), stage.kind.to_owned(), state.to_owned(), fingerprint, why]
}

/// `running in runs/a: train step 40 of 300, process 4711: sft-run …`
fn unfinished_line(folder: &Path, run: &Unfinished) -> String {
    let (place, progress) = (folder.display(), &run.progress);
    let at = progress.place().map(|at| format!(", {at}")).unwrap_or_default();
    let time = format!("{}, started {}", duration(run.summary.seconds), run.summary.started);
    match &progress.process {
        Some(process) => format!("  running in {place}{at}, {time}\n    {process}\n"),
        None => format!("  last run in {place}: interrupted{at}, {time}\n"),
    }
}

fn last_line(folder: &Path, last: Option<&Summary>) -> String {
    let place = folder.display();
    let Some(last) = last else { return format!("  no run in {place} yet\n") };
    let steps = metrics_jsonl::read(&folder.join("metrics.jsonl")).unwrap_or_default();
    let step = steps.iter().map(|(_, line)| line.step()).max();
    let step =
        step.map_or(String::new(), |step| format!(", {} steps in metrics.jsonl", count(step)));
    let state = last.state.words();
    format!(
        "  last run in {place}: {state}, {}, started {}{step}\n",
        duration(last.seconds),
        last.started
    )
}
