//! Arguments in, events out: the only room that prints, reads the environment or picks an exit code.

pub mod arguments;
mod closing;
mod collector;
mod commands;
mod convert_arguments;
pub mod environment;
pub mod exit;
pub mod failure;
mod fault;
mod first_word;
mod idle;
mod libraries;
mod logs;
mod model_folder;
mod nodes;
mod notify;
mod open;
pub mod run_folder;
mod scratch;
pub mod screen;
mod session;
mod signals;
mod sweep_arguments;
mod tensorboard;
pub mod terminal;
pub mod verify_arguments;
mod text_arguments;
mod trials;
mod unfinished;

use arguments::{Arguments, Command, TokenizerCommand};
use clap::{CommandFactory, Parser};
use exit::Exit;
use failure::Failure;
use session::Session;
use std::ffi::OsString;
use terminal::Terminal;

/// Runs the program on its command line, the program's name first.
pub fn main(arguments: Vec<OsString>) -> Exit {
    let environment = environment::variables();
    let json = arguments.iter().any(|argument| argument == "--json");
    let command = arguments.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let arguments = match first_word::with_command(arguments) {
        Ok(arguments) => arguments,
        Err(unknown) => {
            let terminal = Terminal::detect(json, false, &environment);
            let failure = Failure::wrong(unknown.to_string(), unknown.help);
            failure.show(&terminal);
            return failure.exit();
        }
    };
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => return usage(&error, json),
    };
    logs::start(&arguments.output, &environment);
    let terminal = Terminal::detect(arguments.output.json, arguments.output.quiet, &environment);
    let session = Session { terminal, environment, command };
    let exit = dispatch(&session, &arguments.command).unwrap_or_else(|failure| {
        failure.show(&session.terminal);
        failure.exit()
    });
    match terminal::lost() {
        Some(reason) if exit == Exit::Done => {
            session.terminal.error(&format!("failed: stdout could not be written: {reason}"));
            Exit::Failed
        }
        _ => exit,
    }
}

/// clap's own text: help and version to stdout, mistakes to stderr.
fn usage(error: &clap::Error, json: bool) -> Exit {
    if json && error.use_stderr() {
        let terminal = Terminal::detect(true, false, &environment::variables());
        let text = error.to_string();
        let message = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
        Failure::Wrong { message: message.to_owned(), help: None }.show(&terminal);
        return Exit::Wrong;
    }
    // A closed pipe: nobody reads the help any more.
    let _ = error.print();
    if error.use_stderr() { Exit::Wrong } else { Exit::Done }
}

fn dispatch(session: &Session, command: &Command) -> Result<Exit, Failure> {
    match command {
        Command::Run(arguments) => commands::run::run(session, arguments),
        Command::Plan(arguments) => commands::plan::run(session, arguments),
        Command::Preview(arguments) => commands::preview::run(session, arguments),
        Command::Validate(arguments) => commands::validate::run(session, arguments),
        Command::Config(arguments) => commands::config::run(session, arguments),
        Command::Status(arguments) => commands::status::run(session, arguments),
        Command::Verify(arguments) => commands::verify::run(session, arguments),
        Command::Bench(arguments) => commands::bench::run(session, arguments),
        Command::Generate(arguments) => commands::generate::run(session, arguments),
        Command::Convert(arguments) => commands::convert::run(session, arguments),
        Command::Inspect(arguments) => commands::inspect::run(session, arguments),
        Command::Sweep(arguments) => commands::sweep::run(session, arguments),
        Command::Runs(arguments) => commands::runs::run(session, arguments),
        Command::Compare(arguments) => commands::compare::run(session, arguments),
        Command::Gc(arguments) => commands::gc::run(session, arguments),
        Command::Doctor => Ok(commands::doctor::run(session)),
        Command::Schema(arguments) => Ok(commands::schema::run(session, arguments)),
        Command::Tokenizer(arguments) => match &arguments.command {
            TokenizerCommand::Train(arguments) => commands::tokenizer::train(session, arguments),
        },
        Command::Completions(arguments) => {
            completions(session, arguments.shell);
            Ok(Exit::Done)
        }
    }
}

fn completions(session: &Session, shell: clap_complete::Shell) {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "sft-run", &mut script);
    session.terminal.result(&String::from_utf8_lossy(&script));
}
