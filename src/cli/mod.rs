//! Arguments in, events out: the only room that prints, reads the environment or picks an exit code.

pub mod arguments;
pub mod environment;
pub mod exit;
mod first_word;
mod logs;
pub mod screen;
mod signals;
pub mod terminal;
