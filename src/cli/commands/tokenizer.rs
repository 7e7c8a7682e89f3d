//! `sft-run tokenizer train`: a byte-level BPE of one's own.

use crate::cli::arguments::TokenizerTrainArguments;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::session::Session;
use crate::report::numbers::count;
use crate::stages::{self, TrainRequest, TrainText};
use serde_json::json;

/// Runs the command.
pub(in crate::cli) fn train(
    session: &Session,
    arguments: &TokenizerTrainArguments,
) -> Result<Exit, Failure> {
    if let Some(missing) = arguments.files.iter().find(|path| !path.is_file()) {
        return Err(Failure::wrong(
            format!("there is no file `{}`", missing.display()),
            "give text or JSONL files",
        ));
    }
    let request = TrainRequest {
        files: arguments.files.clone(),
        text: text(arguments)?,
        vocab_size: arguments.vocab_size,
        min_frequency: arguments.min_frequency,
    };
    let ids = stages::train_tokenizer(&request, &arguments.output)
        .map_err(|error| Failure::failed(&error))?;
    let path = arguments.output.display();
    if session.terminal.json {
        session
            .terminal
            .result(&format!("{:#}", json!({"path": arguments.output, "vocab_size": ids})));
    } else {
        session.terminal.result(&format!("wrote {path}: {} ids", count(ids as u64)));
    }
    Ok(Exit::Done)
}

fn text(arguments: &TokenizerTrainArguments) -> Result<TrainText, Failure> {
    if !arguments.templates.is_empty() {
        return Ok(TrainText::Templates(arguments.templates.clone()));
    }
    if !arguments.fields.is_empty() {
        return Ok(TrainText::Fields(arguments.fields.clone()));
    }
    let rows = arguments
        .files
        .iter()
        .find(|path| path.extension().is_some_and(|ending| ending == "jsonl"));
    match rows {
        Some(path) => Err(Failure::wrong(
            format!(
                "`{}` holds rows, and which text of a row is meant is not said",
                path.display()
            ),
            "add --field NAME (repeatable) or --template TEXT (repeatable)",
        )),
        None => Ok(TrainText::Lines),
    }
}
