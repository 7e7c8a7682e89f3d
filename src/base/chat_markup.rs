//! `{% generation %}`, the tag that only chat templates have, in the words of the template engine.

use regex::Regex;

/// A chat template in which `{% generation %}` is a filter over a block, which has the same rules for
/// white space; and whether there was one.
pub fn with_filters(source: &str) -> (String, bool) {
    let tag = |name: &str| Regex::new(&format!(r"\{{%([-+]?)\s*{name}\s*([-+]?)%\}}"));
    let (Ok(open), Ok(close)) = (tag("generation"), tag("endgeneration")) else {
        return (source.to_owned(), false);
    };
    let opened = open.replace_all(source, "{%$1 filter generation $2%}");
    let closed = close.replace_all(&opened, "{%$1 endfilter $2%}");
    (closed.into_owned(), open.is_match(source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tag_becomes_a_filter_and_keeps_its_marks_for_white_space() {
        let (source, is_marked) = with_filters("a {%- generation +%}b{% endgeneration -%} c");
        assert_eq!(source, "a {%- filter generation +%}b{% endfilter -%} c");
        assert!(is_marked);
        assert_eq!(with_filters("{{ generation }}"), ("{{ generation }}".to_owned(), false));
    }
}
