//! Hugging Face folders: `config.json`, weights as safetensors or PyTorch files, the tokenizer.

pub mod config;
pub mod forms;
mod read;
mod write;
pub mod written;

pub use read::{open, tensors};
pub use write::write;
