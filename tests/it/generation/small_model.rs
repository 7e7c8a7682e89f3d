//! Small random models for tests of decoding and scoring.

use sft_run::checkpoint::whole;
use sft_run::engine::generation::{ModelError, Vocabulary};
use sft_run::model::Model;
use sft_run::model::weights::start_values;
use sft_run::spec::architecture::{Activation, Architecture, Normalization, PositionEmbedding};

/// Learned positions, layernorm, gelu, biases, tied head.
pub(super) fn learned(vocab_size: usize) -> Architecture {
    Architecture {
        num_layers: 2,
        hidden_size: 32,
        ffn_hidden_size: 64,
        num_attention_heads: 4,
        num_query_groups: 4,
        kv_channels: 8,
        vocab_size,
        padded_vocab_size: vocab_size.next_multiple_of(64),
        max_position_embeddings: 48,
        hidden_dropout: 0.1,
        attention_dropout: 0.1,
        init_method_std: 0.4,
        use_scaled_init_method: false,
        ..crate::engine::gpt()
    }
}

/// Rotary positions on half of the channels, rmsnorm, swiglu, grouped queries, untied head.
pub(super) fn rotary(vocab_size: usize) -> Architecture {
    Architecture {
        num_query_groups: 2,
        position_embedding_type: PositionEmbedding::Rope,
        rotary_percentage: 0.5,
        normalization: Normalization::Rmsnorm,
        activation: Activation::Swiglu,
        bias: false,
        share_embeddings_and_output_weights: false,
        use_parallel_residual: false,
        ..learned(vocab_size)
    }
}

pub(super) fn random(architecture: &Architecture) -> Model {
    whole::build(architecture, start_values(architecture, 17)).expect("a legal shape")
}

/// Tokens without texts.
pub(super) struct NoTexts;

impl Vocabulary for NoTexts {
    fn text(&self, _before: &[u32], _tokens: &[u32]) -> Result<String, ModelError> {
        Ok(String::new())
    }

    fn single_token(&self, _text: &str) -> Option<u32> {
        None
    }
}
