//! A model's shape to `config.json` of Hugging Face.

use super::config::Family;
use crate::spec::architecture::{Activation, Architecture, Normalization, PositionEmbedding};
use serde_json::{Value, json};

/// The family that a shape belongs to; else what no family has.
pub fn family(model: &Architecture) -> Result<Family, String> {
    let even = model.num_attention_heads * model.kv_channels == model.hidden_size;
    let multi_head = model.num_query_groups == model.num_attention_heads && even;
    let layernorm = model.normalization == Normalization::Layernorm;
    let plain = multi_head && layernorm && model.bias && !model.activation.is_gated();
    let family = match model.position_embedding_type {
        PositionEmbedding::LearnedAbsolute if plain && !model.use_parallel_residual => Family::Gpt2,
        PositionEmbedding::Rope if plain => Family::GptNeox,
        PositionEmbedding::Rope
            if model.normalization == Normalization::Rmsnorm
                && model.activation == Activation::Swiglu
                && !model.use_parallel_residual
                && whole(model.rotary_percentage) =>
        {
            Family::Llama
        }
        _ => {
            return Err(format!(
                "Transformers' gpt2, llama and gpt_neox have no model with {} positions, {} norms, \
                 {} activation, {} bias and {} of {} heads for keys: write --to nemo or native",
                word(&model.position_embedding_type),
                word(&model.normalization),
                word(&model.activation),
                if model.bias { "a" } else { "no" },
                model.num_query_groups,
                model.num_attention_heads,
            ));
        }
    };
    Ok(family)
}

fn whole(share: f64) -> bool {
    (share - 1.0).abs() < 1e-9
}

fn word(value: &impl serde::Serialize) -> String {
    serde_json::to_value(value)
        .ok()
        .and_then(|value| Some(value.as_str()?.to_owned()))
        .unwrap_or_default()
}

/// Ids with a meaning that a config names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ends {
    /// Beginning of a sequence.
    pub bos: Option<u32>,
    /// End of a sequence.
    pub eos: Option<u32>,
    /// Padding.
    pub pad: Option<u32>,
}

/// The `config.json` of a model; `dtype` is the numbers' name in PyTorch.
pub fn write(family: Family, model: &Architecture, dtype: &str, ends: Ends) -> Value {
    let mut config = match family {
        Family::Gpt2 => gpt2(model),
        Family::Llama => llama(model),
        Family::GptNeox => gpt_neox(model),
    };
    config["torch_dtype"] = dtype.into();
    config["vocab_size"] = model.vocab_size.into();
    config["initializer_range"] = model.init_method_std.into();
    config["tie_word_embeddings"] = model.share_embeddings_and_output_weights.into();
    config["use_cache"] = true.into();
    for (key, id) in
        [("bos_token_id", ends.bos), ("eos_token_id", ends.eos), ("pad_token_id", ends.pad)]
    {
        config[key] = id.map_or(Value::Null, Value::from);
    }
    config
}

fn gpt2(model: &Architecture) -> Value {
    json!({
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "n_layer": model.num_layers,
        "n_embd": model.hidden_size,
        "n_inner": model.ffn_hidden_size,
        "n_head": model.num_attention_heads,
        "n_positions": model.max_position_embeddings,
        "layer_norm_epsilon": model.layernorm_epsilon,
        "activation_function": activation(model.activation),
        "resid_pdrop": model.hidden_dropout,
        "embd_pdrop": model.hidden_dropout,
        "attn_pdrop": model.attention_dropout,
    })
}

fn llama(model: &Architecture) -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "num_hidden_layers": model.num_layers,
        "hidden_size": model.hidden_size,
        "intermediate_size": model.ffn_hidden_size,
        "num_attention_heads": model.num_attention_heads,
        "num_key_value_heads": model.num_query_groups,
        "head_dim": model.kv_channels,
        "max_position_embeddings": model.max_position_embeddings,
        "rope_theta": model.rotary_base,
        "rope_scaling": scaling(model),
        "rms_norm_eps": model.layernorm_epsilon,
        "hidden_act": "silu",
        "attention_bias": model.bias,
        "mlp_bias": model.bias,
        "attention_dropout": model.attention_dropout,
    })
}

fn gpt_neox(model: &Architecture) -> Value {
    json!({
        "architectures": ["GPTNeoXForCausalLM"],
        "model_type": "gpt_neox",
        "num_hidden_layers": model.num_layers,
        "hidden_size": model.hidden_size,
        "intermediate_size": model.ffn_hidden_size,
        "num_attention_heads": model.num_attention_heads,
        "max_position_embeddings": model.max_position_embeddings,
        "rotary_pct": model.rotary_percentage,
        "rotary_emb_base": model.rotary_base,
        "rope_scaling": scaling(model),
        "layer_norm_eps": model.layernorm_epsilon,
        "hidden_act": activation(model.activation),
        "attention_bias": true,
        "use_parallel_residual": model.use_parallel_residual,
        "hidden_dropout": model.hidden_dropout,
        "attention_dropout": model.attention_dropout,
    })
}

fn scaling(model: &Architecture) -> Value {
    let factor = model.seq_len_interpolation_factor;
    factor.map_or(Value::Null, |factor| json!({"rope_type": "linear", "factor": factor}))
}

fn activation(activation: Activation) -> &'static str {
    match activation {
        Activation::Gelu | Activation::Geglu => "gelu_new",
        Activation::GeluErf => "gelu",
        Activation::Relu | Activation::Reglu => "relu",
        Activation::SquaredRelu => "relu2",
        Activation::Swiglu => "silu",
    }
}
