//! The command line of `convert`.

use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// `convert`.
#[derive(Debug, Args)]
pub struct ConvertArguments {
    /// The checkpoint: a folder or a file of sft-run, Hugging Face, NeMo, Megatron-LM or GGUF
    pub source: PathBuf,
    /// What is written, a new folder or (nemo) file
    pub target: PathBuf,
    /// For which program
    #[arg(long, value_enum)]
    pub to: ConvertTarget,
    /// Tensor-parallel ranks of what is written
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = ranks)]
    pub tp: usize,
    /// Pipeline stages of what is written
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = ranks)]
    pub pp: usize,
    /// Format of the numbers (without it bf16 stays, all else becomes fp32)
    #[arg(long, value_enum)]
    pub dtype: Option<ConvertDtype>,
    /// Rows of a NeMo vocabulary are a multiple of this times --tp
    #[arg(long, default_value_t = 128, value_name = "N", value_parser = ranks)]
    pub make_vocab_size_divisible_by: usize,
}

pub(super) fn ranks(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if (1..=1 << 16).contains(&number) => Ok(number),
        _ => Err("give a number from 1 to 65536".to_owned()),
    }
}

/// What `convert` writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ConvertTarget {
    /// A Hugging Face folder: safetensors, config.json, the tokenizer
    Hf,
    /// A .nemo archive
    Nemo,
    /// A checkpoint of sft-run
    Native,
}

/// Number formats that `convert` writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ConvertDtype {
    /// bfloat16
    Bf16,
    /// float32
    Fp32,
}
