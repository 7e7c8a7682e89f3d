//! What the evaluation computes, each metric by its published definition.
//!
//! A metric sees texts and numbers, never a model: [`texts`] and [`rouge`] score one generated text
//! against the expected one, [`likelihood`] adds up what the model gave to the expected tokens, and
//! [`collector`] gathers the metrics that a recipe asks for.

pub mod bag;
pub mod collector;
pub mod likelihood;
pub mod rouge;
pub mod texts;

pub use collector::{Collector, Error};
pub use likelihood::Likelihood;
