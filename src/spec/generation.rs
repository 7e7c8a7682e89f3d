//! How text is generated: the settings of one decoding run, defaults filled in.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Decoding settings; names follow NeMo's `SamplingParam` and `LengthParam`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Generation {
    /// Take the most likely token; temperature, penalty, top-k and top-p are then set aside.
    pub use_greedy: bool,
    /// Divides the logits.
    pub temperature: f64,
    /// Keep the k most likely tokens; 0 keeps all.
    pub top_k: usize,
    /// Keep the smallest set of tokens whose probability reaches p; 0 or 1 keeps all.
    pub top_p: f64,
    /// Makes tokens that were seen less likely; 1 changes nothing.
    pub repetition_penalty: f64,
    /// Which rule the penalty follows.
    pub repetition_penalty_rule: PenaltyRule,
    /// Least number of new tokens.
    pub min_length: usize,
    /// Most new tokens per prompt.
    pub max_length: usize,
    /// Texts that end the output; they are left out of it.
    pub end_strings: Vec<String>,
    /// Whether prompts start with the beginning-of-sequence token; none where they do as the
    /// samples did that the model learned from.
    pub add_bos: Option<bool>,
    /// Give the log-probability of every new token.
    pub compute_logprob: bool,
    /// Give the log-probabilities of all tokens at every new one.
    pub all_probs: bool,
    /// Seed of the sampling streams (one per prompt).
    pub seed: u64,
    /// Prompts decoded together.
    pub batch_size: usize,
}

/// Rule of the repetition penalty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PenaltyRule {
    /// Positive logits are divided, negative ones multiplied (CTRL, Hugging Face).
    Hf,
    /// Every logit is divided, whatever its sign (NeMo).
    Nemo,
}

/// Why a generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// The end-of-sequence token.
    EndOfSequence,
    /// One of `end_strings`.
    EndString,
    /// `max_length` tokens.
    MaxLength,
    /// The model's last position.
    ContextFull,
    /// Nothing was generated: it is the likeliest of the given choices.
    Chosen,
}
