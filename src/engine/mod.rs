//! Training and decoding: the step, the optimizer, the loop, generation.

pub mod bench;
pub mod classifier;
pub mod devices;
pub mod early_stopping;
mod fault;
pub mod generation;
pub mod gradient_check;
pub mod gradient_norm;
pub mod gradient_reduction;
pub mod journal;
pub mod keeping;
pub mod loss_scale;
pub mod optimizer;
pub mod peak;
pub mod pipeline;
pub mod replica;
pub mod resuming;
pub mod saving;
pub mod schedule;
pub mod scoring;
mod session;
pub mod state;
pub mod step;
pub mod team;
pub mod training;
pub mod validation;
pub mod watch;
