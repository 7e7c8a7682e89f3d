//! Training and decoding: the step, the optimizer, the loop, generation.

pub mod journal;
pub mod schedule;

pub mod generation;
