//! Files of `torch.save`: the zip form and the older stream, read through [`super::pickle`].

mod stream;
mod tree;
mod write;
mod zip;

pub use write::write;

use super::stored::{Piece, StoredTensors};
use serde_json::{Map, Value};

/// What a file of `torch.save` holds; names of nested dictionaries are joined by dots.
#[derive(Clone, Debug, Default)]
pub struct TorchFile {
    /// Its tensors.
    pub tensors: StoredTensors,
    /// Its numbers and texts, such as `args.num_layers` of Megatron-LM.
    pub facts: Map<String, Value>,
}

/// Largest pickle; that of a model with a hundred thousand tensors has a third of it.
const LARGEST_PICKLE: usize = 64 << 20;

/// Reads what is in `file`, but for the tensors' numbers.
pub fn read(file: &Piece) -> Result<TorchFile, String> {
    if file.starts_with(b"PK") { zip::read(file) } else { stream::read(file) }
}
