//! Arguments of the commands about texts: `generate` and `preview`.

use super::arguments::RecipeArguments;
use super::convert_arguments::ranks;
use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// `generate`.
#[derive(Debug, Args)]
pub struct GenerateArguments {
    /// A run folder, a stage's output or a checkpoint
    pub model: PathBuf,
    /// What to continue (repeatable); without it, prompts are read from stdin, one a line
    #[arg(short, long = "prompt", value_name = "TEXT")]
    pub prompts: Vec<String>,
    /// A JSONL file of prompts: an object with the key `prompt` a line
    #[arg(long = "prompts", value_name = "FILE", conflicts_with = "prompts")]
    pub prompts_file: Option<PathBuf>,
    /// Talk in turns, through the chat template that the model learned with, else its tokenizer's
    #[arg(long, conflicts_with_all = ["prompts", "prompts_file", "output"])]
    pub chat: bool,
    /// Write a JSON object a line here: the text, its tokens, why it ended
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Give the log-probability of every new token (with --output or --json)
    #[arg(long)]
    pub logprob: bool,
    /// Start prompts with the beginning-of-sequence token or not (else as the model learned)
    #[arg(long, value_name = "BOOL")]
    pub add_bos: Option<bool>,
    /// Least new tokens
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub min_length: usize,
    /// Make tokens that were seen less likely when sampling; 1 changes nothing
    #[arg(long, value_name = "X", value_parser = above_zero, allow_negative_numbers = true)]
    pub repetition_penalty: Option<f64>,
    /// Prompts decoded together; it does not change their texts
    #[arg(long, default_value_t = 32, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub batch_size: u64,
    /// Most new tokens
    #[arg(long, default_value_t = 64, value_name = "N")]
    pub max_length: usize,
    /// Sample at this temperature (without it the likeliest token is taken)
    #[arg(long, value_name = "T", value_parser = above_zero, allow_negative_numbers = true)]
    pub temperature: Option<f64>,
    /// Sample among the K likeliest tokens; 0 for all
    #[arg(long, value_name = "K")]
    pub top_k: Option<usize>,
    /// Sample among the likeliest tokens that reach this probability; 1 for all
    #[arg(long, value_name = "P", value_parser = above_zero, allow_negative_numbers = true)]
    pub top_p: Option<f64>,
    /// Ranks that split each layer of the model
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = ranks)]
    pub tp: usize,
    /// Pipeline stages that share the model's layers
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = ranks)]
    pub pp: usize,
    /// What computes
    #[arg(long, value_enum, default_value_t = Accelerator::Cpu)]
    pub accelerator: Accelerator,
    /// Number format of the model (else 32 on the CPU and bf16 on GPUs)
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub precision: Option<Bits>,
    /// Seed of the sampling
    #[arg(long, default_value_t = 1234)]
    pub seed: u64,
    /// End a text here (repeatable)
    #[arg(long = "end-string", value_name = "TEXT")]
    pub end_strings: Vec<String>,
}

fn above_zero(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "it is not a number".to_owned())?;
    if number > 0.0 && number.is_finite() {
        return Ok(number);
    }
    Err("it must be above 0; without --temperature the likeliest token is taken".to_owned())
}

/// Devices, named as `trainer.accelerator` names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Accelerator {
    /// The processor.
    Cpu,
    /// NVIDIA GPUs, one for each rank.
    Gpu,
}

/// Number formats, named as `trainer.precision` names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Bits {
    /// fp32.
    #[value(name = "32")]
    Fp32,
    /// bfloat16.
    #[value(name = "bf16")]
    Bf16,
    /// IEEE half.
    #[value(name = "16")]
    Fp16,
}

/// `preview`.
#[derive(Debug, Args)]
pub struct PreviewArguments {
    /// The recipe.
    #[command(flatten)]
    pub recipe: RecipeArguments,
    /// Samples shown of each source
    #[arg(short = 'n', long, default_value_t = 3, value_name = "N")]
    pub samples: usize,
}
