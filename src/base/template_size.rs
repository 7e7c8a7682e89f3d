//! Templates from anywhere: how much of one the engine is given.
//!
//! A chain of operators, filters or `elif` is as deep as it is long, and the engine walks down it on
//! its stack: what is too long is refused before.

use std::ops::Range;

/// The most bytes of one tag or expression, texts in quotes left out.
pub const MAX_CODE: usize = 1_000;
/// The most tags of one template.
pub const MAX_TAGS: usize = 1_000;

/// Bytes of an expression outside of quotes.
pub fn code_length(expression: &str) -> usize {
    let mut quote = None;
    let mut escaped = false;
    let mut length = 0;
    for byte in expression.bytes() {
        match quote {
            Some(open) => {
                quote = quote.filter(|_| escaped || byte != open);
                escaped = byte == b'\\' && !escaped;
            }
            None if byte == b'\'' || byte == b'"' => quote = Some(byte),
            None => length += 1,
        }
    }
    length
}

/// The start of the tag (`{{ … }}`, `{% … %}`) that is too long or one too many.
pub fn too_much(template: &str) -> Option<Range<usize>> {
    let mut rest = 0;
    let mut tags = 0;
    loop {
        let open = rest + template.get(rest..)?.find('{')?;
        rest = open + 1;
        let close = match template.as_bytes().get(open + 1) {
            Some(b'{') => "}}",
            Some(b'%') => "%}",
            _ => continue,
        };
        let end = template.get(open..)?.find(close).map_or(template.len(), |at| open + at);
        tags += 1;
        if code_length(template.get(open..end)?) > MAX_CODE || tags > MAX_TAGS {
            return Some(open..open + 2);
        }
        rest = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_tags_and_many_tags_are_found() {
        let long = format!("a {{{{ 1{} }}}}", "+1".repeat(MAX_CODE));
        assert_eq!(too_much(&long), Some(2..4));
        let many = "{% set a = 1 %}".repeat(MAX_TAGS + 1);
        assert_eq!(too_much(&many), Some(15 * MAX_TAGS..15 * MAX_TAGS + 2));
        let text = format!(
            "{{{{ '{}' }}}} {{ x }} {}",
            "long \\' text ".repeat(MAX_CODE),
            "{ ".repeat(9000)
        );
        assert_eq!(too_much(&text), None);
        assert_eq!(code_length("a + 'b\\'c' + \"d\""), 7);
    }
}
