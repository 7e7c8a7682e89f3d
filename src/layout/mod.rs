//! Arithmetic of a parallel layout: the mesh, the table of parameters, schedules, memory; no tensors.

pub mod fit;
pub mod frozen;
pub mod holding;
pub mod limits;
pub mod memory;
pub mod mesh;
pub mod parameters;
pub mod pieces;
pub mod recompute;
pub mod schedule;
pub mod slice;
