//! Text to a checked recipe: read, render, override, resolve, type, check.

mod check;
mod config;
mod emit;
mod interpolate;
mod literal;
pub mod overrides;
pub mod path;
pub mod place;
pub mod problem;
mod resolve;
mod scalar;
pub mod source;
mod stages;
pub mod suggest;
mod tree;
mod yaml;

pub use check::{CheckedRecipe, load};
pub use config::{View, config_text};
pub use resolve::{Git, Gpus, Request, Resolved, resolve};
pub use stages::{NamedStage, Settings};
