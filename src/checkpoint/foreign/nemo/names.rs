//! Names of NeMo's and Megatron-LM's tensors, old and new, and ours.

/// Parts of the names of Megatron-Core and what ours have in their place; longer ones first.
const MCORE: [(&str, &str); 10] = [
    ("decoder.layers.", "encoder.layers."),
    ("decoder.final_layernorm.", "encoder.final_layernorm."),
    ("self_attention.linear_qkv.layer_norm_", "input_layernorm."),
    ("mlp.linear_fc1.layer_norm_", "post_attention_layernorm."),
    ("pre_mlp_layernorm.", "post_attention_layernorm."),
    ("self_attention.linear_qkv.", "self_attention.query_key_value."),
    ("self_attention.linear_proj.", "self_attention.dense."),
    ("mlp.linear_fc1.", "mlp.dense_h_to_4h."),
    ("mlp.linear_fc2.", "mlp.dense_4h_to_h."),
    ("decoder.", "encoder."),
];

/// Our name (layers counted within the file) of a tensor of theirs; none for what is no weight of
/// the model: optimizer state, angles, state of fp8, copies of the embedding.
pub fn ours(theirs: &str) -> Option<String> {
    let name = theirs.strip_prefix("state_dict.").unwrap_or(theirs);
    let name = name.strip_prefix("model.")?;
    // O2 wraps the model once, Float16Module of Megatron-LM too.
    let name = name.strip_prefix("module.").unwrap_or(name);
    let name = name.strip_prefix("language_model.").unwrap_or(name);
    let no_weight = name.ends_with("_extra_state")
        || name.ends_with("inv_freq")
        || name.starts_with("word_embeddings");
    if no_weight {
        return None;
    }
    // Before NeMo 1.8 and Megatron-LM 3.
    let name = match name.strip_prefix("transformer.") {
        Some(rest) => format!("encoder.{rest}").replace(".attention.", ".self_attention."),
        None => name.to_owned(),
    };
    Some(MCORE.iter().fold(name, |name, (theirs, ours)| name.replace(theirs, ours)))
}

/// Whether a name is one of Megatron-Core's.
pub fn is_mcore(theirs: &str) -> bool {
    theirs.contains("decoder.")
}

/// NeMo's name of a tensor of ours; the layer is counted within the file.
pub fn theirs(ours: &str, mcore: bool) -> String {
    if !mcore {
        return format!("model.language_model.{ours}");
    }
    let back = MCORE.iter().filter(|(theirs, _)| *theirs != "pre_mlp_layernorm.");
    let back = back.filter(|(theirs, _)| *theirs != "decoder.");
    let name = back.fold(ours.to_owned(), |name, (theirs, ours)| name.replace(ours, theirs));
    format!("model.{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_name_is_ours() {
        let check = |theirs: &str, expected: &str| {
            assert_eq!(ours(theirs).as_deref(), Some(expected), "{theirs}");
        };
        let weight = "encoder.layers.3.self_attention.query_key_value.weight";
        check(
            "model.language_model.encoder.layers.3.self_attention.query_key_value.weight",
            weight,
        );
        check(
            "model.module.language_model.encoder.layers.3.self_attention.query_key_value.weight",
            weight,
        );
        check("model.language_model.transformer.layers.3.attention.query_key_value.weight", weight);
        check("state_dict.model.decoder.layers.3.self_attention.linear_qkv.weight", weight);
        let norm = "encoder.layers.0.post_attention_layernorm.weight";
        check("model.decoder.layers.0.mlp.linear_fc1.layer_norm_weight", norm);
        check("model.module.decoder.layers.0.pre_mlp_layernorm.weight", norm);
        for nothing in [
            "model.decoder.layers.0.self_attention.linear_qkv._extra_state",
            "model.language_model.rotary_pos_emb.inv_freq",
            "model.word_embeddings.weight",
            "optimizer.state.0.exp_avg",
        ] {
            assert_eq!(ours(nothing), None);
        }
    }

    #[test]
    fn ours_written_and_read_are_ours() {
        for name in [
            "embedding.word_embeddings.weight",
            "encoder.layers.7.input_layernorm.bias",
            "encoder.layers.7.self_attention.dense.weight",
            "encoder.layers.7.post_attention_layernorm.weight",
            "encoder.layers.7.mlp.dense_h_to_4h.bias",
            "encoder.layers.7.mlp.dense_4h_to_h.weight",
            "encoder.final_layernorm.weight",
            "output_layer.weight",
        ] {
            for mcore in [false, true] {
                assert_eq!(ours(&theirs(name, mcore)).as_deref(), Some(name));
            }
        }
    }
}
