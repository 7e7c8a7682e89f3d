//! What runs between GPUs, on as many devices as there are, 2 at least and 4 at most: real ones, or
//! those of `.ci/cuda/rehearsal.cpp`. Kernels have their checks in `kernels.py`, whole runs in `several.py`.
//!
//!     cargo test --release --features cuda --test gpu

// Collectives, messages and failures of groups whose tensors lie on devices.
mod groups;
