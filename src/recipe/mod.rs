//! Text to a checked recipe: read, render, override, resolve, type, check.

pub mod path;
pub mod place;
pub mod problem;
mod resolve;
mod scalar;
pub mod source;
mod tree;
mod yaml;

pub use resolve::{Git, Gpus, Request, Resolved, resolve};
