//! `sft-run config`: a recipe's values, as they stand or resolved, with where they come from.

use crate::cli::arguments::ConfigArguments;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::open;
use crate::cli::session::Session;
use crate::recipe::{View, config_text};

/// Runs the command.
pub(in crate::cli) fn run(session: &Session, arguments: &ConfigArguments) -> Result<Exit, Failure> {
    let view = View {
        resolve: arguments.resolve,
        path: arguments.path.as_deref(),
        origins: arguments.origins,
        json: session.terminal.json,
    };
    let text =
        open::with_request(session, &arguments.recipe, |request| config_text(request, &view))?;
    session.terminal.result(&text);
    Ok(Exit::Done)
}
