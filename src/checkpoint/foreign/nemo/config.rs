//! `model_config.yaml` of NeMo and the arguments in Megatron-LM's files, to a model's shape.

use crate::spec::architecture::Architecture;
use crate::spec::recipe::Model;
use serde_json::{Map, Value, json};

/// The settings that say what the weights are.
const KEYS: &[&str] = &[
    "num_layers",
    "hidden_size",
    "ffn_hidden_size",
    "num_attention_heads",
    "num_query_groups",
    "kv_channels",
    "encoder_seq_length",
    "max_position_embeddings",
    "position_embedding_type",
    "rotary_percentage",
    "rotary_base",
    "seq_len_interpolation_factor",
    "normalization",
    "layernorm_epsilon",
    "activation",
    "openai_gelu",
    "onnx_safe",
    "bias_activation_fusion",
    "bias",
    "share_embeddings_and_output_weights",
    "use_parallel_residual",
    "hidden_dropout",
    "attention_dropout",
    "ffn_dropout",
    "init_method_std",
    "use_scaled_init_method",
    "megatron_legacy",
    "make_vocab_size_divisible_by",
];

/// Settings of a checkpoint's own.
#[derive(Clone, Debug)]
pub struct Settings {
    model: Model,
    /// Ids of the vocabulary without padding, where it is said.
    pub vocab_size: Option<usize>,
    /// Whether `ffn_hidden_size` is an expression that is not worked out here.
    open_ffn: bool,
    /// Files of the tokenizer as they are named: library, model, vocabulary, merges.
    pub tokenizer: Map<String, Value>,
}

/// Reads `model_config.yaml`.
pub fn nemo(text: &str) -> Result<Settings, String> {
    let wrong = |error: &dyn std::fmt::Display| format!("its model_config.yaml is wrong: {error}");
    let values: Value = serde_yaml::from_str(text).map_err(|error| wrong(&error))?;
    let all = values.as_object().ok_or_else(|| wrong(&"no settings"))?;
    let mut given = Map::new();
    for key in KEYS {
        if let Some(value) = all.get(*key).and_then(|value| plain(value, all)) {
            given.insert((*key).to_owned(), value);
        }
    }
    let open_ffn = all.contains_key("ffn_hidden_size") && !given.contains_key("ffn_hidden_size");
    let model = serde_json::from_value(Value::Object(given)).map_err(|error| wrong(&error))?;
    let tokenizer = all.get("tokenizer").and_then(Value::as_object).cloned().unwrap_or_default();
    let vocab_size = size(all.get("vocab_size"));
    Ok(Settings { model, vocab_size, open_ffn, tokenizer })
}

/// A value as it stands, or that of the setting it names (`${.encoder_seq_length}`); none for null
/// and for other expressions, for which the weights themselves have the answer.
fn plain(value: &Value, all: &Map<String, Value>) -> Option<Value> {
    let Some(text) = value.as_str().and_then(|text| text.strip_prefix("${")) else {
        return (!value.is_null()).then(|| value.clone());
    };
    let name = text.strip_suffix('}')?.trim_start_matches("model.").trim_start_matches('.');
    let named = all.get(name)?;
    (named.is_number() || named.is_boolean()).then(|| named.clone())
}

/// Reads the arguments that Megatron-LM saves beside its weights (`args.NAME`).
pub fn megatron(facts: &Map<String, Value>) -> Result<Settings, String> {
    let fact = |name: &str| facts.get(&format!("args.{name}")).cloned();
    let is = |name: &str| fact(name) == Some(Value::Bool(true));
    let norm = match fact("normalization") {
        Some(name) if name == "RMSNorm" => "rmsnorm",
        _ if is("apply_layernorm_1p") => "layernorm1p",
        _ => "layernorm",
    };
    let rope = is("use_rotary_position_embeddings")
        || fact("position_embedding_type").is_some_and(|name| name == "rope");
    let activation = match (is("swiglu"), is("squared_relu")) {
        (true, _) => "fast-swiglu",
        (_, true) => "squared-relu",
        _ => "gelu",
    };
    let mut given = json!({
        "normalization": norm,
        "position_embedding_type": if rope { "rope" } else { "learned_absolute" },
        "activation": activation,
        "bias": fact("add_bias_linear").unwrap_or(true.into()),
        "bias_activation_fusion": fact("bias_gelu_fusion").unwrap_or(true.into()),
        "share_embeddings_and_output_weights": !is("untie_embeddings_and_output_weights"),
        "layernorm_epsilon":
            fact("norm_epsilon").or_else(|| fact("layernorm_epsilon")).unwrap_or(1e-5.into()),
    });
    let mut copied = vec![
        ("num_layers", "num_layers"),
        ("hidden_size", "hidden_size"),
        ("ffn_hidden_size", "ffn_hidden_size"),
        ("num_attention_heads", "num_attention_heads"),
        ("kv_channels", "kv_channels"),
        ("max_position_embeddings", "max_position_embeddings"),
        ("rotary_percent", "rotary_percentage"),
        ("rotary_base", "rotary_base"),
        ("rotary_seq_len_interpolation_factor", "seq_len_interpolation_factor"),
        ("hidden_dropout", "hidden_dropout"),
        ("attention_dropout", "attention_dropout"),
        ("init_method_std", "init_method_std"),
    ];
    if is("group_query_attention") {
        copied.push(("num_query_groups", "num_query_groups"));
    }
    for (theirs, ours) in copied {
        if let Some(value) = fact(theirs) {
            given[ours] = value;
        }
    }
    let model = serde_json::from_value(given)
        .map_err(|error| format!("the arguments in it are wrong: {error}"))?;
    let vocab_size = size(fact("vocab_size").as_ref());
    Ok(Settings { model, vocab_size, open_ffn: false, tokenizer: Map::new() })
}

fn size(value: Option<&Value>) -> Option<usize> {
    value.and_then(Value::as_u64).and_then(|size| usize::try_from(size).ok())
}

/// What the weights themselves say.
#[derive(Clone, Copy, Debug, Default)]
pub struct Found {
    /// Rows of the embedding over all ranks.
    pub vocabulary: usize,
    /// Rows of a layer's first MLP matrix over all ranks, of its gate alone if it has one.
    pub ffn: Option<usize>,
    /// Whether there is an output layer of its own.
    pub has_output_layer: bool,
}

impl Settings {
    /// Whether `query_key_value` has the old order.
    pub fn legacy_order(&self) -> bool {
        self.model.megatron_legacy.unwrap_or(false)
    }

    /// Whether the activation has a gate.
    pub fn is_gated(&self) -> bool {
        self.model.activation().is_gated()
    }

    /// The shape; the vocabulary is that of the weights, padding included.
    pub fn architecture(&self, found: &Found) -> Result<Architecture, String> {
        let lacks =
            |key: &str| format!("its settings do not say `{key}`, or say a form that is not built");
        let mut model = self.model.clone();
        if self.open_ffn {
            model.ffn_hidden_size = Some(found.ffn.ok_or_else(|| lacks("ffn_hidden_size"))?);
        }
        model.share_embeddings_and_output_weights.get_or_insert(!found.has_output_layer);
        model.architecture(found.vocabulary, found.vocabulary).map_err(lacks)
    }
}
