//! Training and decoding: the step, the optimizer, the loop, generation.

pub mod schedule;

pub mod generation;
