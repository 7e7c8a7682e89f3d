//! Which parameters are frozen: patterns over their names.

/// Whether one of `patterns` names the parameter `name`; `*` in a pattern stands for any text.
pub fn names(patterns: &[String], name: &str) -> bool {
    patterns.iter().any(|pattern| matches(pattern, name))
}

fn matches(pattern: &str, name: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut left) = name.strip_prefix(start) else { return false };
    let mut parts = rest.split('*').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return left.ends_with(part);
        }
        match left.find(part) {
            Some(at) => left = &left[at + part.len()..],
            None => return false,
        }
    }
    true
}

/// The pattern of a block's parameters; the block is counted over the whole model.
pub fn layer(number: usize) -> String {
    format!("encoder.layers.{number}.*")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_any_text() {
        let check = |pattern: &str, name: &str, expected: bool| {
            assert_eq!(names(&[pattern.to_owned()], name), expected, "{pattern} {name}");
        };
        check("embedding.word_embeddings.weight", "embedding.word_embeddings.weight", true);
        check("embedding.word_embeddings", "embedding.word_embeddings.weight", false);
        check("embedding.*", "embedding.word_embeddings.weight", true);
        check("*.bias", "encoder.layers.3.mlp.dense_h_to_4h.bias", true);
        check("*.bias", "encoder.layers.3.mlp.dense_h_to_4h.weight", false);
        check("*layers.3.*.weight", "encoder.layers.3.mlp.dense_h_to_4h.weight", true);
        check("*layers.3.*.weight", "encoder.layers.30.mlp.dense_h_to_4h.weight", false);
        check("ab*ba", "aba", false);
        check("*", "anything", true);
        check(&layer(1), "encoder.layers.1.input_layernorm.weight", true);
        check(&layer(1), "encoder.layers.10.input_layernorm.weight", false);
    }
}
