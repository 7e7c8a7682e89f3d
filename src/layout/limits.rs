//! Whether an architecture read from a file is one that a model can have.

use crate::spec::architecture::{Architecture, PositionEmbedding};

/// Widths, counts and sizes beyond this are not a model's; products of three still fit 64 bits.
const LARGEST: usize = 1 << 20;

/// What is impossible about `architecture`, if anything is.
///
/// Recipes are held to finer rules with places ([`crate::layout`] is below them); this keeps a
/// made-up or damaged file from dividing by zero, overflowing or filling memory.
pub fn problem(architecture: &Architecture) -> Option<String> {
    let model = architecture;
    let sizes = [
        ("num_layers", model.num_layers),
        ("hidden_size", model.hidden_size),
        ("ffn_hidden_size", model.ffn_hidden_size),
        ("num_attention_heads", model.num_attention_heads),
        ("num_query_groups", model.num_query_groups),
        ("kv_channels", model.kv_channels),
        ("max_position_embeddings", model.max_position_embeddings >> 4 | 1),
        ("vocab_size", model.vocab_size >> 10 | 1),
    ];
    if let Some((name, size)) = sizes.iter().find(|(_, size)| !(1..=LARGEST).contains(size)) {
        return Some(format!("{name} is {size}"));
    }
    let (heads, groups) = (model.num_attention_heads, model.num_query_groups);
    if !heads.is_multiple_of(groups) {
        return Some(format!("{heads} heads cannot be divided among {groups} query groups"));
    }
    let (vocabulary, padded) = (model.vocab_size, model.padded_vocab_size);
    if vocabulary == 0 || padded < vocabulary || padded >> 10 > LARGEST {
        return Some(format!("vocab_size is {vocabulary}, padded_vocab_size {padded}"));
    }
    if model.max_position_embeddings == 0 {
        return Some("max_position_embeddings is 0".to_owned());
    }
    numbers(model)
}

fn numbers(model: &Architecture) -> Option<String> {
    let share = model.rotary_percentage;
    let rotary = model.position_embedding_type == PositionEmbedding::Rope;
    if rotary && !(share > 0.0 && share <= 1.0) {
        return Some(format!("rotary_percentage is {share}"));
    }
    let positive = [
        ("rotary_base", Some(model.rotary_base).filter(|_| rotary)),
        ("seq_len_interpolation_factor", model.seq_len_interpolation_factor),
        ("layernorm_epsilon", Some(model.layernorm_epsilon)),
    ];
    let wrong = |value: &f64| !(value.is_finite() && *value > 0.0);
    let mut found = positive.into_iter().filter_map(|(name, value)| Some((name, value?)));
    let (name, value) = found.find(|(_, value)| wrong(value))?;
    Some(format!("{name} is {value}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::parameters::llama_7b;

    #[test]
    fn impossible_shapes_are_told_by_their_field() {
        let check = |change: fn(&mut Architecture), expected: &str| {
            let mut model = llama_7b();
            change(&mut model);
            let found = problem(&model).unwrap_or_default();
            assert!(found.contains(expected), "{expected}: {found}");
        };
        assert_eq!(problem(&llama_7b()), None);
        check(|model| model.num_layers = usize::MAX, "num_layers");
        check(|model| model.num_query_groups = 0, "num_query_groups is 0");
        check(|model| model.num_query_groups = 5, "5 query groups");
        check(|model| model.padded_vocab_size = 31999, "padded_vocab_size 31999");
        check(|model| model.vocab_size = 0, "vocab_size is 0");
        check(|model| model.rotary_percentage = f64::NAN, "rotary_percentage");
        check(|model| model.layernorm_epsilon = -1.0, "layernorm_epsilon is -1");
    }
}
