//! One file per command.

pub(super) mod bench;
pub(super) mod chat;
pub(super) mod compare;
mod compared_answers;
pub(super) mod config;
pub(super) mod convert;
pub(super) mod doctor;
pub(super) mod gc;
pub(super) mod generate;
pub(super) mod inspect;
pub(super) mod plan;
pub(super) mod preview;
mod resumed_sweep;
pub(super) mod run;
pub(super) mod runs;
pub(super) mod schema;
pub(super) mod status;
pub(super) mod sweep;
mod swept;
pub(super) mod tokenizer;
pub(super) mod validate;
pub(super) mod verify;
