//! How much of a metric's spread one key explains: the correlation ratio η².

/// Groups that a key with many values is cut into.
const GROUPS: usize = 4;

/// The share of the variance of the results that lies between the groups of key `at`: equal values,
/// or quarters of the range by rank where there are many. 0 without spread.
pub(super) fn share(results: &[(&[String], f64)], at: usize) -> f64 {
    let values: Vec<f64> = results.iter().map(|(_, value)| *value).collect();
    let mean = mean(&values);
    let total: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    if results.len() < 2 || !total.is_finite() || total <= 0.0 {
        return 0.0;
    }
    let between: f64 = groups(results, at)
        .into_iter()
        .map(|group| group.len() as f64 * (self::mean(&group) - mean).powi(2))
        .sum();
    (between / total).clamp(0.0, 1.0)
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

fn groups(results: &[(&[String], f64)], at: usize) -> Vec<Vec<f64>> {
    let mut pairs: Vec<(&str, f64)> = results
        .iter()
        .map(|(keys, value)| (keys.get(at).map_or("", String::as_str), *value))
        .collect();
    let number = |text: &str| text.parse::<f64>().ok();
    pairs.sort_by(|(one, _), (other, _)| match (number(one), number(other)) {
        (Some(one), Some(other)) => one.total_cmp(&other),
        _ => one.cmp(other),
    });
    let mut groups: Vec<(&str, Vec<f64>)> = Vec::new();
    for (key, value) in &pairs {
        match groups.last_mut().filter(|(known, _)| known == key) {
            Some((_, group)) => group.push(*value),
            None => groups.push((key, vec![*value])),
        }
    }
    // A group for each result would explain everything.
    if groups.len() * 2 > pairs.len() {
        let size = pairs.len().div_ceil(GROUPS);
        return pairs
            .chunks(size)
            .map(|part| part.iter().map(|(_, value)| *value).collect())
            .collect();
    }
    groups.into_iter().map(|(_, group)| group).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_that_decides_has_the_share() {
        let rows: Vec<(Vec<String>, f64)> = (0..8)
            .map(|at| {
                (vec![(at % 2).to_string(), (at / 2 % 2).to_string()], f64::from(at % 2) * 10.0)
            })
            .collect();
        let results: Vec<(&[String], f64)> =
            rows.iter().map(|(keys, value)| (keys.as_slice(), *value)).collect();
        assert!((share(&results, 0) - 1.0).abs() < 1e-12 && share(&results, 1) < 1e-12);
        assert!(share(&results[..1], 0).abs() < 1e-12);
    }
}
