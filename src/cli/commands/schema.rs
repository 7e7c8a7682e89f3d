//! `sft-run schema`: what a recipe may hold.

use crate::cli::arguments::SchemaArguments;
use crate::cli::exit::Exit;
use crate::cli::session::Session;
use crate::recipe::{keys, schema};

/// Runs the command.
pub(in crate::cli) fn run(session: &Session, arguments: &SchemaArguments) -> Exit {
    let terminal = &session.terminal;
    let text = match (arguments.keys, terminal.json) {
        (true, true) => format!("{:#}", keys::listing_json()),
        (true, false) => keys::listing(),
        (false, _) if arguments.strict => schema::text(&schema::strict()),
        (false, _) => schema::text(&schema::authoring()),
    };
    terminal.result(&text);
    Exit::Done
}
