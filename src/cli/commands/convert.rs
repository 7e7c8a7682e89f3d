//! `sft-run convert`: any program's checkpoint as another's.

use crate::cli::arguments::{ConvertArguments, ConvertDtype, ConvertTarget};
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::model_folder;
use crate::cli::session::Session;
use crate::cli::terminal::Terminal;
use crate::report::numbers::count;
use crate::spec::event::{Event, Sink};
use crate::stages::convert::{self, Settings, Target};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

/// Runs the command.
pub(in crate::cli) fn run(
    session: &Session,
    arguments: &ConvertArguments,
) -> Result<Exit, Failure> {
    let (source, target) = (&arguments.source, &arguments.target);
    if !source.exists() {
        return Err(Failure::wrong(
            format!("there is no `{}`", source.display()),
            "give a checkpoint: a folder or a file",
        ));
    }
    let source = if model_folder::is_run(source) { &model_folder::of(source)? } else { source };
    let settings = Settings {
        target: match arguments.to {
            ConvertTarget::Hf => Target::HuggingFace,
            ConvertTarget::Nemo => Target::Nemo,
            ConvertTarget::Native => Target::Native,
        },
        tensor: arguments.tp,
        pipeline: arguments.pp,
        bf16: arguments.dtype.map(|dtype| dtype == ConvertDtype::Bf16),
        divisible_by: arguments.make_vocab_size_divisible_by,
    };
    let bar = Bar::new(&session.terminal);
    let converted = convert::run(source, target, &settings, &bar);
    bar.0.finish_and_clear();
    let converted = converted.map_err(|error| match error {
        convert::Error::Exists(_) | convert::Error::Impossible(_) => {
            Failure::Wrong { message: error.to_string(), help: None }
        }
        error => Failure::failed(&error),
    })?;
    let terminal = &session.terminal;
    if terminal.json {
        let text = json!({
            "from": converted.from,
            "path": target,
            "parameters": converted.parameters,
            "tokenizer": converted.without_tokenizer.is_none(),
        });
        terminal.result(&format!("{text:#}"));
        return Ok(Exit::Done);
    }
    if let Some(reason) = &converted.without_tokenizer {
        terminal.line(&format!("no tokenizer goes along: {reason}"));
    }
    let parameters = count(converted.parameters as u64);
    let path = target.display();
    terminal.result(&format!("wrote {path}: {parameters} parameters of {}", converted.from));
    Ok(Exit::Done)
}

/// A bar of bytes on a terminal, nothing elsewhere.
struct Bar(ProgressBar);

impl Bar {
    fn new(terminal: &Terminal) -> Bar {
        let shown = terminal.interactive && !terminal.quiet;
        let bar = if shown { ProgressBar::new(0) } else { ProgressBar::hidden() };
        let style = "{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec}";
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style);
        }
        Bar(bar)
    }
}

impl Sink for Bar {
    fn emit(&self, event: Event) {
        if let Event::Progress { task, done, total, .. } = event {
            self.0.set_message(task);
            self.0.set_length(total);
            self.0.set_position(done);
        }
    }
}
