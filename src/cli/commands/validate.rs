//! `sft-run validate`: checks a recipe and touches nothing else.

use crate::cli::arguments::RecipeArguments;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::idle;
use crate::cli::open;
use crate::cli::session::Session;
use crate::cli::terminal::Paint;
use serde_json::json;

/// Runs the command.
pub(in crate::cli) fn run(session: &Session, arguments: &RecipeArguments) -> Result<Exit, Failure> {
    let (checked, lints) = open::recipe(session, arguments)?;
    let terminal = &session.terminal;
    let stages: Vec<&str> = checked.stages().iter().map(|stage| stage.name.as_str()).collect();
    if terminal.json {
        let lints = crate::recipe::diagnostic::json(&lints);
        let document =
            json!({"valid": true, "name": checked.name(), "stages": stages, "lints": lints});
        terminal.result(&format!("{:#}", idle::with_keys(document, &checked)));
        return Ok(Exit::Done);
    }
    let mark = terminal.paint(Paint::Green, "✓");
    let path = arguments.recipe.display();
    let lints = match lints.len() {
        0 => String::new(),
        1 => ", 1 lint".to_owned(),
        many => format!(", {many} lints"),
    };
    terminal.line(&format!("{mark} {path} is valid: {}{lints}", stages.join(" → ")));
    if !terminal.quiet {
        idle::list(session, &checked);
    }
    Ok(Exit::Done)
}
