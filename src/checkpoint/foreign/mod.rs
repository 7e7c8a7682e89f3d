//! Checkpoints of other programs: read as they are, and written for them.

pub mod archive;
pub mod form;
pub mod gguf;
pub mod hugging_face;
pub mod nemo;
pub mod pickle;
pub mod quantized;
pub mod reader;
pub mod rectangles;
pub mod safetensors;
pub mod stored;
pub mod torch;
pub mod written;
