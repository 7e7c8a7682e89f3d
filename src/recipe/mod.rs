//! Text to a checked recipe: read, render, override, resolve, type, check.

pub mod path;
pub mod place;
pub mod problem;
