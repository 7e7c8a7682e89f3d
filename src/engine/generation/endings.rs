//! Where a growing text ends, and how much of it may be shown already.

/// The byte at which the earliest of `end_strings` begins in `text`.
///
/// NeMo asks whether the text ends with the string, and so misses one that ends inside a token; here
/// it may stand anywhere in what was generated.
pub fn end_string(text: &str, end_strings: &[String]) -> Option<usize> {
    let given = end_strings.iter().filter(|end| !end.is_empty());
    given.filter_map(|end| text.find(end.as_str())).min()
}

/// Number of leading bytes of `text` that stay as they are whatever is generated next.
///
/// Held back are a character whose bytes are not all there (a decoder shows U+FFFD) and a tail that
/// may become one of `end_strings`.
pub fn settled(text: &str, end_strings: &[String]) -> usize {
    let whole = text.trim_end_matches(char::REPLACEMENT_CHARACTER);
    let mut settled = whole.len();
    for end in end_strings {
        let starts = end.char_indices().map(|(at, _)| at).skip(1);
        let begun = starts.filter(|at| whole.ends_with(&end[..*at])).max();
        settled = settled.min(whole.len() - begun.unwrap_or(0));
    }
    settled
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(strings: &[&str]) -> Vec<String> {
        strings.iter().map(|string| (*string).to_owned()).collect()
    }

    #[test]
    fn the_earliest_end_string_counts() {
        assert_eq!(end_string("one\ntwo END", &ends(&["END", "\n"])), Some(3));
        assert_eq!(end_string("one two", &ends(&["END", ""])), None);
        // The newline ends inside a token such as "\nx": still found.
        assert_eq!(end_string("one\nx", &ends(&["\n"])), Some(3));
    }

    #[test]
    fn a_tail_that_may_become_an_end_string_is_held_back() {
        assert_eq!(settled("text <|end", &ends(&["<|endoftext|>"])), 5);
        assert_eq!(settled("text", &ends(&["<|endoftext|>"])), 4);
        assert_eq!(settled("aa", &ends(&["aab"])), 0);
        assert_eq!(settled("é\u{fffd}", &[]), 2);
        assert_eq!(settled("aé", &ends(&["éx"])), 1);
    }
}
