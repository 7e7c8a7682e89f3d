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
    let scored = near.map(|candidate| (likeness(candidate), candidate));
    let (distance, best) = scored.min()?;
    let longest = word.chars().count().max(best.chars().count());
    // A third of the letters may be wrong, and one always.
    (distance <= (longest / 3).max(1) && distance < longest).then_some(best)
}

/// `did you mean `x`?`, when something is near.
pub fn did_you_mean<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<String> {
    nearest(word, candidates).map(|best| format!("did you mean `{best}`?"))
}
