//! The shape of a GPT: what the recipe's `model` section says of it, with every default filled in.
//!
//! Field names are NeMo's (`megatron_gpt_config.yaml`).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A GPT's shape and start values.
#[expect(clippy::struct_excessive_bools, reason = "each is a property of its own")]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Architecture {
    /// Number of transformer blocks.
    pub num_layers: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the MLP's inner layer (of each half, for a gated activation).
    pub ffn_hidden_size: usize,
    /// Number of query heads.
    pub num_attention_heads: usize,
    /// Number of key and value heads; equals `num_attention_heads` for multi-head attention.
    pub num_query_groups: usize,
    /// Width of one head.
    pub kv_channels: usize,
    /// Number of ids that the tokenizer can produce.
    pub vocab_size: usize,
    /// Rows of the embedding: `vocab_size` rounded up, see [`padded_vocab_size`].
    pub padded_vocab_size: usize,
    /// Longest sequence that learned positions can number.
    pub max_position_embeddings: usize,
    /// How positions enter.
    pub position_embedding_type: PositionEmbedding,
    /// Share of each head's channels that rotary positions turn.
    pub rotary_percentage: f64,
    /// Base of the rotary angles.
    pub rotary_base: f64,
    /// Factor by which rotary positions are divided (linear interpolation), if any.
    pub seq_len_interpolation_factor: Option<f64>,
    /// Normalization of the blocks' inputs and of the last layer's output.
    pub normalization: Normalization,
    /// Added to the variance (or mean square) in every normalization.
    pub layernorm_epsilon: f64,
    /// The MLP's activation.
    pub activation: Activation,
    /// Whether linear layers have biases.
    pub bias: bool,
    /// Whether the output layer is the word embedding.
    pub share_embeddings_and_output_weights: bool,
    /// Whether attention and MLP of a block both read the block's input (GPT-NeoX), instead of one
    /// after the other. Left out of files when it is not so, as before there was such a field.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub use_parallel_residual: bool,
    /// Dropout after the embedding, after attention's output and after the MLP.
    pub hidden_dropout: f64,
    /// Dropout of the attention probabilities.
    pub attention_dropout: f64,
    /// Dropout of the MLP's inner activations.
    pub ffn_dropout: f64,
    /// Standard deviation of the start values of weights.
    pub init_method_std: f64,
    /// Whether layers that write to the residual stream start with `init_method_std / sqrt(2 × num_layers)`.
    pub use_scaled_init_method: bool,
}

/// How positions enter the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PositionEmbedding {
    /// A learned vector per position, added to the word embedding.
    LearnedAbsolute,
    /// Rotation of queries and keys (RoFormer), halves form as in NeMo and Hugging Face's LLaMA.
    Rope,
}

/// Normalization of a hidden vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Normalization {
    /// `(x - mean) / sqrt(var + eps) * weight + bias`.
    Layernorm,
    /// Layernorm whose stored weight is the difference from one: `… * (1 + weight) + bias`.
    Layernorm1p,
    /// `x / sqrt(mean(x²) + eps) * weight`.
    Rmsnorm,
}

/// The MLP's activation; the `fast-` names of NeMo store both halves of a gated one in one matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Activation {
    /// GELU; the tanh form, which is what NeMo's fused bias-gelu computes.
    Gelu,
    /// GELU in its exact form, with erf (NeMo's `openai_gelu: false` without fusion, Hugging Face's `gelu`).
    GeluErf,
    /// `max(x, 0)`.
    Relu,
    /// `max(x, 0)²`.
    SquaredRelu,
    /// `gelu(gate) * up`, GELU in the form of [`Activation::Gelu`].
    Geglu,
    /// `silu(gate) * up`.
    Swiglu,
    /// `max(gate, 0) * up`.
    Reglu,
}

impl Activation {
    /// Whether the first linear layer of the MLP has two halves, gate and up.
    pub fn is_gated(self) -> bool {
        matches!(self, Activation::Geglu | Activation::Swiglu | Activation::Reglu)
    }
}

/// `vocab_size` rounded up to a multiple of `divisible_by × tensor_parallel` (Megatron's rule).
pub fn padded_vocab_size(vocab_size: usize, divisible_by: usize, tensor_parallel: usize) -> usize {
    vocab_size.next_multiple_of(divisible_by * tensor_parallel)
}
