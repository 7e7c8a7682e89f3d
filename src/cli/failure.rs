//! Why a command did not do what it was asked to, and how that is shown.

use super::exit::Exit;
use super::terminal::{Paint, Terminal};
use crate::artifacts;
use crate::base::error_chain::with_causes;
use crate::recipe::diagnostic;
use crate::recipe::problem::Problem;
use crate::runner;
use serde_json::json;
use std::error::Error;

/// Why a command ended early.
#[derive(Debug)]
pub enum Failure {
    /// The recipe has problems.
    Problems(Vec<Problem>),
    /// The command cannot be carried out as it was typed.
    Wrong {
        /// What is wrong.
        message: String,
        /// What to do.
        help: Option<String>,
    },
    /// Something that was begun failed.
    Failed(String),
    /// Something that was begun was broken off, and may well come to its end the next time.
    BrokenOff {
        /// What happened.
        message: String,
        /// What to do.
        help: String,
    },
    /// A signal stopped it.
    Interrupted(String),
}

impl Failure {
    /// A command that cannot be carried out.
    pub fn wrong(message: impl Into<String>, help: impl Into<String>) -> Failure {
        Failure::Wrong { message: message.into(), help: Some(help.into()) }
    }

    /// An error with its causes.
    pub fn failed(error: &dyn Error) -> Failure {
        Failure::Failed(with_causes(error))
    }

    /// The exit code.
    pub fn exit(&self) -> Exit {
        match self {
            Failure::Problems(_) | Failure::Wrong { .. } => Exit::Wrong,
            Failure::Failed(_) | Failure::BrokenOff { .. } | Failure::Interrupted(_) => {
                Exit::Failed
            }
        }
    }

    /// One line for summaries.
    pub fn message(&self) -> String {
        match self {
            Failure::Problems(problems) => problems
                .iter()
                .map(|problem| problem.message.clone())
                .collect::<Vec<_>>()
                .join("; "),
            Failure::Wrong { message, .. }
            | Failure::BrokenOff { message, .. }
            | Failure::Failed(message)
            | Failure::Interrupted(message) => message.clone(),
        }
    }

    /// Prints it: to people on stderr, or as JSON on stdout.
    pub fn show(&self, terminal: &Terminal) {
        if terminal.json {
            terminal.result(&format!("{:#}", self.to_json()));
            return;
        }
        match self {
            Failure::Problems(problems) => {
                terminal.error(&diagnostic::render_width(
                    problems,
                    terminal.error_color,
                    terminal.width,
                ));
            }
            Failure::Wrong { message, help } => {
                show_error(terminal, "error:", message, help.as_deref());
            }
            Failure::Failed(message) => show_error(terminal, "failed:", message, None),
            Failure::BrokenOff { message, help } => {
                show_error(terminal, "failed:", message, Some(help));
            }
            Failure::Interrupted(message) => {
                terminal.error(&format!(
                    "{} {message}",
                    terminal.paint_error(Paint::Yellow, "interrupted:")
                ));
            }
        }
    }

    fn to_json(&self) -> serde_json::Value {
        let exit_code = self.exit().code();
        match self {
            Failure::Problems(problems) => {
                json!({"exit_code": exit_code, "problems": diagnostic::json(problems)})
            }
            Failure::Wrong { message, help } => {
                json!({"exit_code": exit_code, "error": {"code": "cli::wrong", "message": message, "help": help}})
            }
            Failure::Failed(message) => {
                json!({"exit_code": exit_code, "error": {"code": "run::failed", "message": message}})
            }
            Failure::BrokenOff { message, help } => {
                json!({"exit_code": exit_code, "error": {"code": "run::failed", "message": message, "help": help}})
            }
            Failure::Interrupted(message) => {
                json!({"exit_code": exit_code, "error": {"code": "run::interrupted", "message": message}})
            }
        }
    }
}

fn show_error(terminal: &Terminal, mark: &str, message: &str, help: Option<&str>) {
    terminal.error(&format!("{} {message}", terminal.paint_error(Paint::Red, mark)));
    if let Some(help) = help {
        terminal.error(&format!("  {} {help}", terminal.paint_error(Paint::Cyan, "help:")));
    }
}

impl From<Vec<Problem>> for Failure {
    fn from(problems: Vec<Problem>) -> Failure {
        Failure::Problems(problems)
    }
}

impl From<runner::Error> for Failure {
    fn from(error: runner::Error) -> Failure {
        match &error {
            runner::Error::Missing(_) | runner::Error::UnknownStage { .. } => {
                Failure::Wrong { message: error.to_string(), help: None }
            }
            runner::Error::Stopped { .. } => Failure::Interrupted(error.to_string()),
            _ => match error.help() {
                Some(help) => {
                    Failure::BrokenOff { message: with_causes(&error), help: help.to_owned() }
                }
                None => Failure::failed(&error),
            },
        }
    }
}

impl From<artifacts::Error> for Failure {
    fn from(error: artifacts::Error) -> Failure {
        Failure::failed(&error)
    }
}

impl From<super::run_folder::Error> for Failure {
    fn from(error: super::run_folder::Error) -> Failure {
        Failure::failed(&error)
    }
}
