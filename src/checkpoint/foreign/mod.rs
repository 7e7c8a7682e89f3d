//! Checkpoints of other programs: read as they are, and written for them.

pub mod pickle;
pub mod quantized;
pub mod rectangles;
pub mod safetensors;
pub mod stored;
