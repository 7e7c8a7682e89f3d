//! Text to a checked recipe: read, render, override, resolve, type, check.

mod check;
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
pub use resolve::{Git, Gpus, Request, Resolved, resolve};
pub use stages::{NamedStage, Settings};
