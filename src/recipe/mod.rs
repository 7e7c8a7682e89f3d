//! Text to a checked recipe: read, render, override, resolve, type, check.

mod check;
mod config;
mod cursor;
mod emit;
pub mod diagnostic;
mod extends;
mod findings;
mod interpolate;
pub mod keys;
mod lints;
mod literal;
pub mod overrides;
pub mod path;
pub mod place;
mod plain;
pub mod problem;
mod render;
mod resolve;
mod rules;
mod scalar;
pub mod schema;
pub mod source;
mod spelled_numbers;
mod stages;
mod tree;
mod yaml;

pub use check::{CheckedRecipe, load, no_effect};
pub use config::{View, config_text};
pub use resolve::{Git, Gpus, Request, Resolved, resolve};
pub use stages::{NamedStage, Settings};
