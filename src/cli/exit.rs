//! What the program's exit code says.

use std::process::ExitCode;

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done, or up to date.
    Done,
    /// A stage, a metric program or a rank failed, or the run was interrupted.
    Failed,
    /// The recipe or the command is wrong.
    Wrong,
    /// `verify`: something differs.
    Different,
    /// `plan` or `status`: there is work to do.
    Work,
}

impl Exit {
    /// The number that a shell sees.
    pub fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Wrong => 2,
            Exit::Different => 3,
            Exit::Work => 4,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.code())
    }
}
