//! What came of a sweep: its table, its page, its best trial.

use crate::artifacts;
use crate::base::{atomic_file, shell_words};
use crate::cli::arguments::SweepArguments;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::run_folder::RUNNING;
use crate::cli::session::Session;
use crate::cli::trials;
use crate::report::sweep as page;
use crate::sweep::table::{AtWork, Table};
use crate::sweep::{State, sampler};
use serde_json::json;
use std::path::Path;

/// Writes the page, shows the table, and tells what failed.
pub(super) fn finish(
    session: &Session,
    arguments: &SweepArguments,
    state: &State,
    folder: &Path,
    stopped: bool,
) -> Result<Exit, Failure> {
    let table = Table::of(state, &at_work(state, folder));
    let shown = page::Page::of(&page_data(state, &table, folder));
    let text = page::render(&shown).map_err(|error| Failure::failed(&error))?;
    let path = folder.join(page::FILE);
    atomic_file::write(&path, text.as_bytes()).map_err(|error| Failure::failed(&error))?;
    show(session, arguments, state, folder);
    let failures = trials::failures(state);
    if stopped && failures.is_empty() {
        let message = "the sweep is not finished; the same command with --resume goes on with it";
        return Err(Failure::Interrupted(message.to_owned()));
    }
    if failures.is_empty() {
        return Ok(Exit::Done);
    }
    // The document on stdout has the errors already.
    if session.terminal.json {
        return Ok(Exit::Failed);
    }
    Err(Failure::Failed(format!(
        "{} of {} trials\n  {}",
        failures.len(),
        state.trials.len(),
        failures.join("\n  ")
    )))
}

fn page_data(state: &State, table: &Table, folder: &Path) -> page::Data {
    let trial = |row: &crate::sweep::table::Row| page::Trial {
        number: row.trial,
        state: row.state,
        values: row.values.clone(),
        value: row.value,
        error: row.error.clone(),
        folder: trials::run_folder(folder, row.trial),
    };
    page::Data {
        name: state.header.name.clone(),
        recipe: state.header.recipe.display().to_string(),
        metric: state.header.metric.clone(),
        small_is_best: state.header.small_is_best,
        keys: table.keys.clone(),
        log_keys: state.header.space.log_keys(),
        trials: table.rows.iter().map(trial).collect(),
        best: best_command(state),
    }
}

/// The command that runs the best trial again.
fn best_command(state: &State) -> Option<String> {
    let points = state.points(state.best()?);
    let mut words = vec!["sft-run".to_owned(), state.header.recipe.display().to_string()];
    words.extend(state.header.space.fixed.clone());
    let values = sampler::typed(&state.header.space, &points);
    words.extend(values.iter().flat_map(|(key, value)| trials::words(key, value)));
    Some(shell_words::joined(words.iter().map(String::as_str)))
}

/// Which trials processes hold now.
fn at_work(state: &State, folder: &Path) -> AtWork {
    let is_held = |trial: &usize| artifacts::is_held(&trials::leash(folder, *trial));
    let trials = (0..state.trials.len()).filter(is_held).collect();
    let sweep = artifacts::named(&folder.join(RUNNING)).is_some_and(|named| named.is_alive);
    AtWork { sweep, trials }
}

/// Shows the sweep as a table, as CSV or as JSON.
pub(super) fn show(session: &Session, arguments: &SweepArguments, state: &State, folder: &Path) {
    let (table, terminal) = (Table::of(state, &at_work(state, folder)), &session.terminal);
    if terminal.json {
        let mut document = table.json();
        document["best"] = json!(state.best());
        document["at_work"] = json!(at_work(state, folder).sweep);
        document["command"] = json!(best_command(state));
        document["folder"] = json!(folder);
        terminal.result(&format!("{document:#}"));
    } else if arguments.csv {
        terminal.result(&table.csv());
    } else {
        terminal.result(&table.text(terminal.table_width()));
        terminal.result(&format!("\n{}", table.counts()));
        if let Some(command) = best_command(state) {
            terminal.result(&format!("best: {command}"));
        }
        let path = folder.join(page::FILE);
        if path.exists() {
            terminal.result(&format!("page: {}", path.display()));
        }
    }
}
