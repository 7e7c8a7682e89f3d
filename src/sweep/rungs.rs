//! Which trials go on: asynchronous successive halving (ASHA), decided in the order of the trials.
//!
//! Source: Li et al., "A System for Massively Parallel Hyperparameter Tuning" (`MLSys` 2020), in its
//! stopping form. A trial at a rung is held against the trials *before it* that reached the rung,
//! not against those that happen to be there already: so what goes on does not depend on timing,
//! and a sweep that is run again, or killed and resumed, ends with the same trials.

/// Steps at which trials are held against each other, the last step left out.
pub fn rungs(max_steps: u64, reduction: u64) -> Vec<u64> {
    let mut rungs = Vec::new();
    let mut at = max_steps / reduction;
    while at > 0 {
        rungs.push(at);
        at /= reduction;
    }
    rungs.reverse();
    // The lowest ones say too little: two are kept.
    let keep = rungs.len().saturating_sub(2);
    rungs.split_off(keep)
}

/// Whether a trial goes on: its cost against those of the trials before it at the same rung.
pub fn goes_on(before: &[f64], cost: f64, reduction: u64) -> bool {
    let places = ((before.len() as u64 + 1) / reduction).max(1) as usize;
    // A tie goes to the earlier trial. What is no number stands last.
    let better = before.iter().filter(|other| other.total_cmp(&cost).is_le()).count();
    !cost.is_nan() && better < places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rungs_are_shares_of_the_run() {
        assert_eq!(rungs(900, 3), [100, 300]);
        assert_eq!(rungs(12, 3), [1, 4]);
        assert_eq!(rungs(5, 3), [1]);
        assert_eq!(rungs(2, 3), [] as [u64; 0]);
        assert_eq!(rungs(64, 2), [16, 32]);
    }

    #[test]
    fn the_best_third_goes_on() {
        assert!(goes_on(&[], 5.0, 3));
        assert!(!goes_on(&[5.0], 6.0, 3) && goes_on(&[5.0], 4.0, 3));
        assert!(!goes_on(&[5.0], 5.0, 3), "a tie goes to the earlier one");
        let five = [5.0, 4.0, 3.0, 2.0, 1.0];
        assert!(goes_on(&five, 1.5, 3) && !goes_on(&five, 2.5, 3));
        assert!(!goes_on(&[], f64::NAN, 3));
    }
}
