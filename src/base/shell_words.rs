//! Words as a POSIX shell reads them back, for commands that are shown to be typed again.

/// The word, in single quotes where a shell would read it otherwise.
pub fn quoted(word: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./=:,@%+".contains(&byte);
    if !word.is_empty() && word.bytes().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// The words with spaces between.
pub fn joined<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    words.into_iter().map(quoted).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_shell_would_read_otherwise_is_quoted() {
        let words =
            ["sft-run", "a b.yaml", "model.optim.lr=1e-3", "name='x,y'", "", "~old", "$HOME"];
        let expected =
            r"sft-run 'a b.yaml' model.optim.lr=1e-3 'name='\''x,y'\''' '' '~old' '$HOME'";
        assert_eq!(joined(words), expected);
    }
}
