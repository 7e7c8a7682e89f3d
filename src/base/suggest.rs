//! "Did you mean": the known word that is nearest to an unknown one.

/// The candidate most like the word, when one is alike enough to be meant.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    // Distances grow with the square of the length: a hostile key is not worth them.
    if word.len() > 200 {
        return None;
    }
    let likeness = |candidate: &str| strsim::damerau_levenshtein(&word, &candidate.to_lowercase());
    let near = candidates.into_iter().filter(|candidate| candidate.len() <= 200).take(2_000);
    let near: Vec<&str> = near.collect();
    let begun = |candidate: &&&str| word.len() >= 3 && candidate.to_lowercase().starts_with(&word);
    let scored = near.iter().map(|candidate| (likeness(candidate), *candidate));
    let (distance, best) = scored.min()?;
    let longest = word.chars().count().max(best.chars().count());
    // A third of the letters may be wrong, and one always.
    if distance <= (longest / 3).max(1) && distance < longest {
        return Some(best);
    }
    // `cosine` means `CosineAnnealing` when nothing else begins so.
    let mut continued = near.iter().filter(begun);
    let first = continued.next().copied();
    first.filter(|_| continued.next().is_none())
}

/// `did you mean `x`?`, when something is near.
pub fn did_you_mean<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<String> {
    nearest(word, candidates).map(|best| format!("did you mean `{best}`?"))
}

/// Words in back quotes with commas between.
pub fn listed<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = words.into_iter().map(|word| format!("`{word}`")).collect();
    quoted.join(", ")
}

/// What to write in place of an unknown word: the one that is meant, if one is near, and, after
/// `lead`, all there are.
pub fn choices<'a>(
    word: &str,
    lead: &str,
    candidates: impl IntoIterator<Item = &'a str> + Clone,
) -> String {
    let meant = did_you_mean(word, candidates.clone()).map(|meant| format!("{meant} "));
    format!("{}{lead} {}", meant.unwrap_or_default(), listed(candidates))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_meant_and_another_word_is_not() {
        let stages = ["tokenize", "shard", "train"];
        assert_eq!(nearest("trian", stages), Some("train"));
        assert_eq!(nearest("tok", stages), Some("tokenize"));
        assert_eq!(nearest("evaluate", stages), None);
        let all = "the stages are `tokenize`, `shard`, `train`";
        assert_eq!(
            choices("Shart", "the stages are", stages),
            format!("did you mean `shard`? {all}")
        );
        assert_eq!(choices("evaluate", "the stages are", stages), all);
    }
}
