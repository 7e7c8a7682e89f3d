//! `sft-run plan`: what a run would do, and why.

use crate::cli::arguments::{GraphForm, PlanArguments};
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::idle;
use crate::cli::open;
use crate::cli::session::Session;
use crate::cli::terminal::Paint;
use crate::plan::draw;
use crate::plan::schedule::{Piece, PipelineView, pipelines};
use crate::plan::suggest::suggestions as suggest;
use crate::runner;

/// Runs the command.
pub(in crate::cli) fn run(session: &Session, arguments: &PlanArguments) -> Result<Exit, Failure> {
    let opened = open::plan_for(session, &arguments.recipe, arguments.device_memory)?;
    if arguments.schedule {
        return schedules(session, &opened);
    }
    if arguments.suggest {
        return suggestions(session, &opened);
    }
    let preview = runner::preview(&opened.plan, &opened.settings(session))?;
    let exit = if preview.is_up_to_date() { Exit::Done } else { Exit::Work };
    let runs = |stage: &str| preview.runs(stage);
    let terminal = &session.terminal;
    match arguments.graph {
        Some(GraphForm::Mermaid) => terminal.result(&draw::mermaid(&opened.plan, runs)),
        Some(GraphForm::Dot) => terminal.result(&draw::dot(&opened.plan, runs)),
        None if terminal.json => {
            let document =
                serde_json::to_value(&preview).map_err(|error| Failure::failed(&error))?;
            let document = idle::with_keys(document, &opened.checked);
            terminal.result(&format!("{document:#}"));
        }
        None => {
            idle::note(session, &opened.checked, &arguments.recipe.recipe);
            terminal.result(&open::with_marks(session, &preview.to_string()));
        }
    }
    Ok(exit)
}

/// Layouts printed for each training.
const SUGGESTIONS: usize = 8;

/// Prints the layouts that fit.
fn suggestions(session: &Session, opened: &open::Opened) -> Result<Exit, Failure> {
    let found = suggest(&opened.plan);
    if found.is_empty() {
        let none = opened.plan.headers().is_empty();
        let message = if none {
            "the recipe trains nothing"
        } else {
            "the memory of a GPU is not known here"
        };
        let help = if none { "name a train stage" } else { "give it: --device-memory 80GiB" };
        return Err(Failure::wrong(message, help));
    }
    if session.terminal.json {
        let document = serde_json::to_value(&found).map_err(|error| Failure::failed(&error))?;
        session.terminal.result(&format!("{document:#}"));
    } else {
        let tables = found.iter().map(|one| one.table(SUGGESTIONS, session.terminal.width));
        session.terminal.result(&tables.collect::<Vec<_>>().join("\n"));
    }
    Ok(Exit::Done)
}

/// Prints the pipeline schedules.
fn schedules(session: &Session, opened: &open::Opened) -> Result<Exit, Failure> {
    let views = pipelines(&opened.plan);
    if session.terminal.json {
        let document = serde_json::to_value(&views).map_err(|error| Failure::failed(&error))?;
        session.terminal.result(&format!("{document:#}"));
    } else {
        let texts = views.iter().map(|view| drawing(session, view));
        session.terminal.result(&texts.collect::<Vec<_>>().join("\n"));
    }
    Ok(Exit::Done)
}

fn drawing(session: &Session, view: &PipelineView) -> String {
    let terminal = &session.terminal;
    let label = format!("  stage {}  ", view.pipeline.len().saturating_sub(1)).chars().count();
    let mut text = format!("{}\n", terminal.paint(Paint::Bold, &view.title()));
    for (at, line) in view.grid(terminal.width.saturating_sub(label)).iter().enumerate() {
        let paint = |piece: &Piece| match piece {
            Piece::Forward(cell) => terminal.paint(Paint::Cyan, cell),
            Piece::Backward(cell) => terminal.paint(Paint::Green, cell),
            Piece::Idle(_) | Piece::Gap => piece.text().to_owned(),
        };
        let line: String = line.iter().map(paint).collect();
        let name = format!("  stage {at}");
        text.push_str(&format!("{name:label$}{}\n", line.trim_end()));
    }
    let (forward, backward) =
        (terminal.paint(Paint::Cyan, "0"), terminal.paint(Paint::Green, "[0]"));
    let letters = if view.schedule_has_chunks() { ", chunks are letters" } else { "" };
    text.push_str(&format!(
        "  {forward} forward of micro-batch 0, {backward} its backward{letters}; {:.0} % of the time is waiting\n",
        100.0 * view.bubble
    ));
    for line in view.table() {
        text.push_str(&format!("  {line}\n"));
    }
    text
}
