//! What every command is handed: the streams, the environment and the words that were typed.

use super::terminal::Terminal;
use std::collections::BTreeMap;

/// One start of the program.
#[derive(Debug)]
pub(super) struct Session {
    /// The streams.
    pub(super) terminal: Terminal,
    /// The environment variables.
    pub(super) environment: BTreeMap<String, String>,
    /// The command line, the program's name first.
    pub(super) command: Vec<String>,
}
