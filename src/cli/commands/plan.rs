//! `sft-run plan`: what a run would do, and why.

use crate::cli::arguments::{GraphForm, PlanArguments};
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::idle;
use crate::cli::open;
use crate::cli::session::Session;
use crate::plan::draw;
use crate::runner;

/// Runs the command.
pub(in crate::cli) fn run(session: &Session, arguments: &PlanArguments) -> Result<Exit, Failure> {
    let opened = open::plan(session, &arguments.recipe)?;
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
