//! `manifest.json`: what a native checkpoint holds, with a hash for every tensor.
//!
//! Version 1: the first.

use crate::base::digest::Digest;
use crate::spec::architecture::Architecture;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The version that this program writes and reads.
pub const VERSION: u32 = 1;
/// What the manifest says it is.
pub const FORMAT: &str = "sft-run checkpoint";

/// The content of `manifest.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: String,
    /// [`VERSION`].
    pub version: u32,
    /// The model's shape.
    pub architecture: Architecture,
    /// Where training stands.
    pub progress: Progress,
    /// Tensors of `model.safetensors` by name.
    pub model: BTreeMap<String, TensorEntry>,
    /// Tensors of `optimizer.safetensors` by name; empty when there is no such file.
    pub optimizer: BTreeMap<String, TensorEntry>,
}

/// Where training stands; with the seed this decides everything that comes next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// Optimizer steps done.
    pub step: u64,
    /// Sequences consumed.
    pub consumed_samples: u64,
}

/// One tensor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TensorEntry {
    /// Its shape.
    pub shape: Vec<usize>,
    /// BLAKE3 of its bytes (little-endian f32, row-major).
    pub blake3: Digest,
}
