//! Training and decoding: the step, the optimizer, the loop, generation.

pub mod bench;
pub mod generation;
pub mod journal;
pub mod loss_scale;
pub mod optimizer;
pub mod schedule;
pub mod scoring;
pub mod step;
pub mod training;
pub mod validation;
