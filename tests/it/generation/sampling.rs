//! Decoding rules as functions of logits.

use proptest::prelude::*;
use sft_run::base::seed::Stream;
use sft_run::engine::generation::sampling::{draw, keep_top_k, keep_top_p, penalize, softmax};
use sft_run::engine::generation::{History, Rules, SettingsError};
use sft_run::spec::generation::{Generation, PenaltyRule};

const NONE: History<'static> = History { prompt: &[], generated: &[] };

/// Settings that keep every token.
pub(super) fn sampled() -> Generation {
    Generation {
        use_greedy: false,
        temperature: 1.0,
        top_k: 0,
        top_p: 1.0,
        repetition_penalty: 1.0,
        repetition_penalty_rule: PenaltyRule::Hf,
        min_length: 0,
        max_length: 8,
        end_strings: Vec::new(),
        add_bos: None,
        compute_logprob: false,
        all_probs: false,
        seed: 1234,
        batch_size: 4,
    }
}

pub(super) fn greedy() -> Generation {
    Generation { use_greedy: true, ..sampled() }
}

fn kept(logits: &[f64]) -> Vec<usize> {
    (0..logits.len()).filter(|id| logits[*id] > f64::NEG_INFINITY).collect()
}

fn check_top_k(logits: &[f64], k: usize, wanted: &[usize]) {
    let mut logits = logits.to_vec();
    keep_top_k(&mut logits, k);
    assert_eq!(kept(&logits), wanted);
}

#[test]
fn top_k_keeps_the_largest_and_the_equals_of_the_last() {
    check_top_k(&[1.0, 3.0, 2.0, 0.0], 2, &[1, 2]);
    check_top_k(&[2.0, 3.0, 2.0, 0.0], 2, &[0, 1, 2]);
    check_top_k(&[1.0, 3.0, 2.0], 0, &[0, 1, 2]);
    check_top_k(&[1.0, 3.0, 2.0], 9, &[0, 1, 2]);
    check_top_k(&[f64::NEG_INFINITY, -3.0, -2.0], 1, &[2]);
}

fn check_top_p(probabilities: &[f64], p: f64, wanted: &[usize]) {
    let mut logits: Vec<f64> = probabilities.iter().map(|share| share.ln()).collect();
    keep_top_p(&mut logits, p);
    assert_eq!(kept(&logits), wanted);
}

#[test]
fn top_p_keeps_the_first_token_past_the_threshold() {
    check_top_p(&[0.125, 0.5, 0.25, 0.125], 0.6, &[1, 2]);
    check_top_p(&[0.125, 0.5, 0.25, 0.125], 0.4, &[1]);
    // Exactly reached: only more than p drops the next one.
    check_top_p(&[0.125, 0.5, 0.25, 0.125], 0.5, &[1, 2]);
    check_top_p(&[0.25, 0.25, 0.25, 0.25], 0.3, &[0, 1]);
    check_top_p(&[0.125, 0.5, 0.25, 0.125], 1.0, &[0, 1, 2, 3]);
    check_top_p(&[0.125, 0.5, 0.25, 0.125], 0.0, &[0, 1, 2, 3]);
}

/// The rule of top-p with all tokens in order.
fn plain_top_p(logits: &mut [f64], p: f64) {
    let probabilities = softmax(logits);
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|a, b| probabilities[*b].total_cmp(&probabilities[*a]));
    let mut reached = 0.0;
    for id in order {
        if reached > p {
            logits[id] = f64::NEG_INFINITY;
        }
        reached += probabilities[id];
    }
}

proptest! {
    #[test]
    fn top_p_puts_no_more_in_order_than_it_takes(
        heights in proptest::collection::vec(0..30_u32, 1..4000),
        p in 0.01..0.999_f64,
        slope in prop_oneof![Just(0.01), Just(0.5), Just(30.0)],
    ) {
        // Many equals; nearly even, and with almost all in a few.
        let logits: Vec<f64> = heights.iter().map(|height| f64::from(*height) * slope).collect();
        let (mut found, mut wanted) = (logits.clone(), logits);
        keep_top_p(&mut found, p);
        plain_top_p(&mut wanted, p);
        prop_assert_eq!(found, wanted);
    }
}

fn check_penalty(rule: PenaltyRule, history: &History, wanted: &[f64]) {
    let mut logits = vec![4.0, -4.0, 1.0, -1.0];
    let settings =
        Generation { repetition_penalty: 2.0, repetition_penalty_rule: rule, ..sampled() };
    penalize(&mut logits, history, &settings);
    assert_eq!(logits, wanted);
}

#[test]
fn the_penalty_follows_the_rule_that_is_named() {
    let history = History { prompt: &[0, 1, 1], generated: &[3] };
    check_penalty(PenaltyRule::Hf, &history, &[2.0, -8.0, 1.0, -2.0]);
    // NeMo leaves the prompt's first token out and divides negative logits too.
    check_penalty(PenaltyRule::Nemo, &history, &[4.0, -2.0, 1.0, -0.5]);
    let first = History { prompt: &[0, 1], generated: &[] };
    check_penalty(PenaltyRule::Hf, &first, &[2.0, -8.0, 1.0, -1.0]);
    check_penalty(PenaltyRule::Nemo, &first, &[4.0, -4.0, 1.0, -1.0]);
}

#[test]
fn the_end_token_waits_for_the_least_length() {
    let settings = Generation { min_length: 2, ..greedy() };
    let rules = Rules::new(&settings, 3, Some(1)).expect("legal settings");
    let logits = [0.0, 9.0, 1.0, 99.0];
    let after = |generated| History { prompt: &[0], generated };
    // Id 3 is padding: it is never chosen.
    assert_eq!(rules.choose(&logits, &after(&[0]), 0.5), Ok(2));
    assert_eq!(rules.choose(&logits, &after(&[0, 0]), 0.5), Ok(1));
    let sampling = Generation { min_length: 2, ..sampled() };
    let rules = Rules::new(&sampling, 3, Some(1)).expect("legal settings");
    assert_eq!(rules.probabilities(&logits, &after(&[0]))[1], 0.0);
}

#[test]
fn greedy_takes_the_lowest_id_among_equals_and_refuses_what_is_no_number() {
    let rules = Rules::new(&greedy(), 4, None).expect("legal settings");
    assert_eq!(rules.choose(&[1.0, 7.0, 7.0, 0.0], &NONE, 0.9), Ok(1));
    assert!(rules.choose(&[1.0, f32::NAN, 7.0, 0.0], &NONE, 0.9).is_err());
    assert!(rules.choose(&[f32::NEG_INFINITY; 4], &NONE, 0.9).is_err());
    let rules = Rules::new(&sampled(), 4, None).expect("legal settings");
    assert!(rules.choose(&[1.0, f32::NAN, 7.0, 0.0], &NONE, 0.9).is_err());
    assert!(rules.choose(&[f32::NEG_INFINITY; 4], &NONE, 0.9).is_err());
}

#[test]
fn settings_that_cannot_be_followed_are_refused() {
    let refused = |settings: Generation| Rules::new(&settings, 4, None).unwrap_err();
    let cold = refused(Generation { temperature: 0.0, ..sampled() });
    assert_eq!(cold, SettingsError::Temperature(0.0));
    let share = refused(Generation { top_p: 1.5, ..sampled() });
    assert_eq!(share, SettingsError::TopP(1.5));
    let lengths = refused(Generation { min_length: 9, ..sampled() });
    assert_eq!(lengths, SettingsError::Lengths { min: 9, max: 8 });
    assert_eq!(refused(Generation { batch_size: 0, ..sampled() }), SettingsError::BatchSize);
    // Greedy does not use the temperature, so it may be anything.
    Rules::new(&Generation { temperature: 0.0, ..greedy() }, 4, None).expect("greedy is legal");
}

/// Chi-squared of 100,000 draws against the distribution that the rules state.
#[test]
fn draws_follow_the_stated_distribution() {
    let settings =
        Generation { temperature: 0.7, top_k: 6, top_p: 0.9, repetition_penalty: 1.3, ..sampled() };
    let rules = Rules::new(&settings, 8, None).expect("legal settings");
    let logits = [0.5, -0.25, 1.5, 0.0, 1.0, -2.0, 0.75, 0.6];
    let history = History { prompt: &[2, 1], generated: &[4] };
    let probabilities = rules.probabilities(&logits, &history);
    let stream = Stream::new(7, "test");
    let mut counts = [0u32; 8];
    for position in 0..100_000 {
        let token = rules.choose(&logits, &history, stream.uniform(position)).expect("a token");
        counts[token as usize] += 1;
    }
    let mut chi_squared = 0.0;
    for (count, probability) in counts.iter().zip(&probabilities) {
        if *probability == 0.0 {
            assert_eq!(*count, 0, "a dropped token was drawn");
        } else {
            let wanted = probability * 100_000.0;
            chi_squared += (f64::from(*count) - wanted).powi(2) / wanted;
        }
    }
    // 99.9% quantile of chi-squared with 7 degrees of freedom; fewer tokens are kept.
    assert!(chi_squared < 24.3, "{chi_squared}: {counts:?} for {probabilities:?}");
}

proptest! {
    #[test]
    fn what_is_kept_is_a_distribution_over_the_likeliest(
        logits in prop::collection::vec(-20f32..20.0, 1..40),
        k in 0usize..50,
        p in 0f64..1.0,
        temperature in 0.05f64..4.0,
        uniform in 0f64..1.0,
    ) {
        let settings = Generation { top_k: k, top_p: p, temperature, ..sampled() };
        let rules = Rules::new(&settings, logits.len(), None).expect("legal settings");
        let shares = rules.probabilities(&logits, &NONE);
        prop_assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-9);
        // No dropped token is likelier than a kept one.
        let least = (0..logits.len()).filter(|id| shares[*id] > 0.0).map(|id| logits[id]);
        let least = least.fold(f32::INFINITY, f32::min);
        let dropped = (0..logits.len()).filter(|id| shares[*id] == 0.0).map(|id| logits[id]);
        // Underflow of exp() drops tokens far below all others, which the comparison allows.
        prop_assert!(dropped.fold(f32::NEG_INFINITY, f32::max) <= least);
        let token = rules.choose(&logits, &NONE, uniform).expect("a token") as usize;
        prop_assert!(shares[token] > 0.0);
    }

    #[test]
    fn a_draw_is_the_inverse_of_the_running_sum(
        logits in prop::collection::vec(-5f64..5.0, 1..30),
        uniform in 0f64..1.0,
    ) {
        let shares = softmax(&logits);
        let token = draw(&shares, uniform).expect("a token") as usize;
        let before: f64 = shares[..token].iter().sum();
        prop_assert!(before <= uniform + 1e-12);
        prop_assert!(before + shares[token] >= uniform - 1e-12);
    }
}
