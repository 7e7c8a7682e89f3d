//! `sft-run inspect`: what a file or folder of ours holds.

use crate::cli::arguments::InspectArguments;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::session::Session;
use crate::cli::terminal::Paint;
use crate::report::tables;
use crate::stages::inspect::{self, Inspected};

/// Rows of a list that are shown to people; `--json` gives all.
const ROWS: usize = 40;

/// Runs the command.
pub(in crate::cli) fn run(
    session: &Session,
    arguments: &InspectArguments,
) -> Result<Exit, Failure> {
    let path = &arguments.path;
    if !path.exists() && !path.with_extension("idx").exists() {
        return Err(Failure::wrong(
            format!("there is no `{}`", path.display()),
            "give a file or a folder",
        ));
    }
    let found = inspect::run(path).map_err(|error| Failure::failed(&error))?;
    let Some(found) = found else {
        let help = "checkpoints, token files (.bin, .idx), tokenizers, stage outputs and run folders can be inspected";
        return Err(Failure::wrong(
            format!("`{}` is nothing that sft-run knows", path.display()),
            help,
        ));
    };
    let terminal = &session.terminal;
    if terminal.json {
        let text = serde_json::to_string_pretty(&found).map_err(|error| Failure::failed(&error))?;
        terminal.result(&text);
    } else {
        terminal.result(&text(session, &found));
    }
    Ok(Exit::Done)
}

fn text(session: &Session, found: &[Inspected]) -> String {
    found.iter().map(|one| part(session, one)).collect::<Vec<_>>().join("\n")
}

fn part(session: &Session, found: &Inspected) -> String {
    let heading = session.terminal.paint(Paint::Bold, &found.what);
    let mut text = format!("{heading}  {}\n", found.path.display());
    let width = found.facts.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    for (name, value) in &found.facts {
        text += &format!("  {name:<width$}  {value}\n");
    }
    if let Some((header, rows)) = &found.list {
        let header: Vec<&str> = header.iter().map(String::as_str).collect();
        text += "\n";
        text += &tables::words(&header, rows.iter().take(ROWS).cloned().collect());
        if rows.len() > ROWS {
            text += &format!("  … and {} more (--json lists all)\n", rows.len() - ROWS);
        }
    }
    text
}
