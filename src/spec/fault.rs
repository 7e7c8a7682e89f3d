//! A failure that is asked for: which rank fails in which step, to see what becomes of the run.

use serde::{Deserialize, Serialize};

/// A rank that is to fail in the middle of a step's backward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// The rank's number in the run.
    pub rank: usize,
    /// The step, from 1.
    pub step: u64,
    /// How it fails.
    pub kind: FaultKind,
}

/// A way to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FaultKind {
    /// The computation gives an error, as it does when a kernel or a device fails.
    Error,
    /// The rank's thread panics.
    Panic,
}
