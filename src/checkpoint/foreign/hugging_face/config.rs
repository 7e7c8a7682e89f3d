//! `config.json` of Hugging Face to a model's shape.

use crate::spec::architecture::{Activation, Architecture, Normalization, PositionEmbedding};
use serde_json::{Map, Value};

/// A model that Transformers has under this name and that ours can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// `gpt2`.
    Gpt2,
    /// `llama`; `mistral` is the same with other defaults.
    Llama,
    /// `gpt_neox`.
    GptNeox,
}

/// The family and shape that a `config.json` describes.
pub fn read(text: &str) -> Result<(Family, Architecture), String> {
    let config: Map<String, Value> =
        serde_json::from_str(text).map_err(|error| format!("its config.json is wrong: {error}"))?;
    let config = Config(config);
    match config.0.get("model_type").and_then(Value::as_str) {
        Some("gpt2") => Ok((Family::Gpt2, config.gpt2()?)),
        Some("llama") => Ok((Family::Llama, config.llama(32)?)),
        Some("mistral") => Ok((Family::Llama, config.llama(8)?)),
        Some("gpt_neox") => Ok((Family::GptNeox, config.gpt_neox()?)),
        other => Err(format!(
            "its config.json says model_type {}, and sft-run reads gpt2, llama, mistral and gpt_neox",
            other.map_or("nothing".to_owned(), |name| format!("`{name}`"))
        )),
    }
}

struct Config(Map<String, Value>);

impl Config {
    fn gpt2(&self) -> Result<Architecture, String> {
        for (key, only) in [
            ("scale_attn_weights", true),
            ("scale_attn_by_inverse_layer_idx", false),
            ("add_cross_attention", false),
        ] {
            self.only(key, &only.into())?;
        }
        let (hidden, heads) = (self.size("n_embd", 768)?, self.size("n_head", 12)?);
        Ok(Architecture {
            num_layers: self.size("n_layer", 12)?,
            hidden_size: hidden,
            ffn_hidden_size: self.size("n_inner", 4 * hidden)?,
            num_attention_heads: heads,
            num_query_groups: heads,
            kv_channels: Self::divided("n_embd", hidden, heads)?,
            max_position_embeddings: self.size("n_positions", 1024)?,
            position_embedding_type: PositionEmbedding::LearnedAbsolute,
            normalization: Normalization::Layernorm,
            layernorm_epsilon: self.number("layer_norm_epsilon", 1e-5)?,
            activation: self.activation("activation_function", "gelu_new")?,
            bias: true,
            share_embeddings_and_output_weights: self.flag("tie_word_embeddings", true)?,
            hidden_dropout: self.number("resid_pdrop", 0.1)?,
            attention_dropout: self.number("attn_pdrop", 0.1)?,
            ..self.common(50257)?
        })
    }

    fn llama(&self, default_groups: usize) -> Result<Architecture, String> {
        let bias = self.flag("attention_bias", false)?;
        if bias != self.flag("mlp_bias", false)? {
            return Err("its config.json has biases in some linear layers only".to_owned());
        }
        let (hidden, heads) =
            (self.size("hidden_size", 4096)?, self.size("num_attention_heads", 32)?);
        let positions = self.size("max_position_embeddings", 2048)?;
        let groups = if self.given("num_key_value_heads") { default_groups } else { heads };
        let head_width = if self.given("head_dim") {
            self.size("head_dim", 0)?
        } else {
            Self::divided("hidden_size", hidden, heads)?
        };
        Ok(Architecture {
            num_layers: self.size("num_hidden_layers", 32)?,
            hidden_size: hidden,
            ffn_hidden_size: self.size("intermediate_size", 11008)?,
            num_attention_heads: heads,
            num_query_groups: self.size("num_key_value_heads", groups)?,
            kv_channels: head_width,
            // Within the window attention is the same; beyond it this model has no positions.
            max_position_embeddings: positions.min(self.size("sliding_window", positions)?),
            position_embedding_type: PositionEmbedding::Rope,
            rotary_base: self.rotary("rope_theta", 10_000.0)?,
            seq_len_interpolation_factor: self.interpolation()?,
            normalization: Normalization::Rmsnorm,
            layernorm_epsilon: self.number("rms_norm_eps", 1e-6)?,
            activation: match self.activation("hidden_act", "silu")? {
                Activation::Swiglu => Activation::Swiglu,
                _ => return Err("its hidden_act is not silu".to_owned()),
            },
            bias,
            share_embeddings_and_output_weights: self.flag("tie_word_embeddings", false)?,
            attention_dropout: self.number("attention_dropout", 0.0)?,
            ..self.common(32000)?
        })
    }

    fn gpt_neox(&self) -> Result<Architecture, String> {
        self.only("attention_bias", &true.into())?;
        let (hidden, heads) =
            (self.size("hidden_size", 6144)?, self.size("num_attention_heads", 64)?);
        let share = self.rotary("partial_rotary_factor", f64::NAN)?;
        let share = if share.is_nan() { self.number("rotary_pct", 0.25)? } else { share };
        Ok(Architecture {
            num_layers: self.size("num_hidden_layers", 44)?,
            hidden_size: hidden,
            ffn_hidden_size: self.size("intermediate_size", 24576)?,
            num_attention_heads: heads,
            num_query_groups: heads,
            kv_channels: Self::divided("hidden_size", hidden, heads)?,
            max_position_embeddings: self.size("max_position_embeddings", 2048)?,
            position_embedding_type: PositionEmbedding::Rope,
            rotary_percentage: share,
            rotary_base: if self.given("rotary_emb_base") {
                self.number("rotary_emb_base", 10_000.0)?
            } else {
                self.rotary("rope_theta", 10_000.0)?
            },
            seq_len_interpolation_factor: self.interpolation()?,
            normalization: Normalization::Layernorm,
            layernorm_epsilon: self.number("layer_norm_eps", 1e-5)?,
            activation: self.activation("hidden_act", "gelu")?,
            bias: true,
            share_embeddings_and_output_weights: self.flag("tie_word_embeddings", false)?,
            use_parallel_residual: self.flag("use_parallel_residual", true)?,
            hidden_dropout: self.number("hidden_dropout", 0.0)?,
            attention_dropout: self.number("attention_dropout", 0.0)?,
            ..self.common(50432)?
        })
    }

    /// What every family says alike; the rest is to be overwritten.
    fn common(&self, vocab_size: usize) -> Result<Architecture, String> {
        let vocab_size = self.size("vocab_size", vocab_size)?;
        Ok(Architecture {
            num_layers: 0,
            hidden_size: 0,
            ffn_hidden_size: 0,
            num_attention_heads: 0,
            num_query_groups: 0,
            kv_channels: 0,
            vocab_size,
            padded_vocab_size: vocab_size,
            max_position_embeddings: 0,
            position_embedding_type: PositionEmbedding::Rope,
            rotary_percentage: 1.0,
            rotary_base: 10_000.0,
            seq_len_interpolation_factor: None,
            normalization: Normalization::Layernorm,
            layernorm_epsilon: 1e-5,
            activation: Activation::Gelu,
            bias: false,
            share_embeddings_and_output_weights: false,
            use_parallel_residual: false,
            hidden_dropout: 0.0,
            attention_dropout: 0.0,
            ffn_dropout: 0.0,
            init_method_std: self.number("initializer_range", 0.02)?,
            use_scaled_init_method: true,
        })
    }

    fn given(&self, key: &str) -> bool {
        self.0.get(key).is_some_and(|value| !value.is_null())
    }

    fn wrong(key: &str, value: &Value) -> String {
        format!("its config.json has `{key}: {value}`, which sft-run does not understand")
    }

    fn size(&self, key: &str, default: usize) -> Result<usize, String> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(default),
            Some(value) => {
                let size = value.as_u64().and_then(|size| usize::try_from(size).ok());
                // Larger ones are not models; products of two must not overflow.
                size.filter(|size| *size < 1 << 31).ok_or_else(|| Config::wrong(key, value))
            }
        }
    }

    fn number(&self, key: &str, default: f64) -> Result<f64, String> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(default),
            Some(value) => value.as_f64().ok_or_else(|| Config::wrong(key, value)),
        }
    }

    fn flag(&self, key: &str, default: bool) -> Result<bool, String> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(default),
            Some(value) => value.as_bool().ok_or_else(|| Config::wrong(key, value)),
        }
    }

    fn only(&self, key: &str, only: &Value) -> Result<(), String> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(()),
            Some(value) if value == only => Ok(()),
            Some(value) => Err(Config::wrong(key, value)),
        }
    }

    fn divided(key: &str, size: usize, heads: usize) -> Result<usize, String> {
        let even = heads > 0 && size.is_multiple_of(heads);
        even.then(|| size / heads)
            .ok_or_else(|| format!("its {key} of {size} does not divide among {heads} heads"))
    }

    /// A rotary setting, which Transformers 5 keeps under `rope_parameters`.
    fn rotary(&self, key: &str, default: f64) -> Result<f64, String> {
        let inner = self.0.get("rope_parameters").and_then(|settings| settings.get(key));
        match inner {
            Some(value) if !value.is_null() => {
                value.as_f64().ok_or_else(|| Config::wrong(key, value))
            }
            _ => self.number(key, default),
        }
    }

    /// The factor of linear interpolation; other scalings of rotary positions are refused.
    fn interpolation(&self) -> Result<Option<f64>, String> {
        let given = ["rope_parameters", "rope_scaling"].iter().find_map(|key| self.0.get(*key));
        let Some(Value::Object(scaling)) = given else { return Ok(None) };
        let kind = scaling.get("rope_type").or_else(|| scaling.get("type"));
        match kind.and_then(Value::as_str) {
            None | Some("default") => Ok(None),
            Some("linear") => {
                let factor = scaling.get("factor").and_then(Value::as_f64);
                factor.map(Some).ok_or_else(|| "its rope_scaling has no factor".to_owned())
            }
            Some(other) => Err(format!(
                "its rotary positions are scaled by `{other}`, and sft-run has `linear` only"
            )),
        }
    }

    fn activation(&self, key: &str, default: &str) -> Result<Activation, String> {
        let name = match self.0.get(key) {
            None | Some(Value::Null) => default,
            Some(value) => value.as_str().ok_or_else(|| Config::wrong(key, value))?,
        };
        Ok(match name {
            "gelu_new" | "gelu_fast" | "gelu_pytorch_tanh" => Activation::Gelu,
            "gelu" | "gelu_python" => Activation::GeluErf,
            "relu" => Activation::Relu,
            "relu2" => Activation::SquaredRelu,
            "silu" | "swish" => Activation::Swiglu,
            other => return Err(Config::wrong(key, &other.into())),
        })
    }
}
