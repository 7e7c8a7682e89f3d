//! What runs between GPUs, on as many devices as there are, 2 at least and 4 at most: real ones, or
//! those of `.ci/cuda/rehearsal`. Kernels have their checks in `kernels.py`, whole runs in `several.py`.
//!
//!     cargo test --release --features cuda --test gpu

#![expect(clippy::unwrap_used, reason = "a test fails by a panic, in its helpers too")]

// Collectives, messages and failures of groups whose tensors lie on devices.
mod groups;
