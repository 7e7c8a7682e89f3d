//! A hundred thousand draws of every sampling rule against the distribution that it promises.

use super::sampling::sampled;
use sft_run::engine::generation::{
    Logits, ModelError, NewTokens, Predictor, Request, Rules, Vocabulary, decode,
};
use sft_run::spec::generation::Generation;
use std::sync::atomic::AtomicBool;

const DRAWS: usize = 100_000;
const LOGITS: [f32; 12] = [1.5, -0.5, 2.0, 0.0, 0.7, -2.0, 1.1, 0.3, -1.2, 2.4, -0.1, 0.9];
/// The prompt, whose tokens the penalty makes less likely: one logit above 0, one below.
const PROMPT: [u32; 2] = [9, 8];

/// Gives the same logits to everybody.
struct Constant;

impl Predictor for Constant {
    fn extend(&mut self, rows: &[NewTokens<'_>]) -> Result<Logits, ModelError> {
        Ok(Logits { values: LOGITS.repeat(rows.len()), width: LOGITS.len() })
    }

    fn release(&mut self, _row: usize) {}

    fn context(&self) -> Option<usize> {
        None
    }
}

impl Vocabulary for Constant {
    fn text(&self, _before: &[u32], _tokens: &[u32]) -> Result<String, ModelError> {
        Ok(String::new())
    }

    fn single_token(&self, _text: &str) -> Option<u32> {
        None
    }
}

/// How often each token comes first in the texts of as many prompts.
fn counts(settings: &Generation) -> Vec<f64> {
    let settings = Generation { max_length: 1, batch_size: 64, ..settings.clone() };
    let rules = Rules::new(&settings, LOGITS.len(), None).expect("legal settings");
    let prompts = vec![PROMPT.to_vec(); DRAWS];
    let stop = AtomicBool::new(false);
    let request = Request {
        prompts: &prompts,
        rules: &rules,
        vocabulary: &Constant,
        stop: &stop,
        share: (0, 1),
    };
    let texts = decode(&mut Constant, &request, &mut |_| ()).expect("decodes");
    let mut counts = vec![0.0; LOGITS.len()];
    for text in &texts {
        counts[text.tokens[0] as usize] += 1.0;
    }
    counts
}

fn normal(weights: &[f64]) -> Vec<f64> {
    let sum: f64 = weights.iter().sum();
    weights.iter().map(|weight| weight / sum).collect()
}

fn exponentials(logits: impl Iterator<Item = f64>) -> Vec<f64> {
    normal(&logits.map(f64::exp).collect::<Vec<_>>())
}

/// Holds the draws to `expected` by Pearson's test; the limit is passed once in a million samples.
fn check(settings: &Generation, expected: &[f64]) {
    let counts = counts(settings);
    let mut statistic = 0.0;
    for (token, (count, share)) in counts.iter().zip(expected).enumerate() {
        if *share == 0.0 {
            assert_eq!(*count, 0.0, "token {token} may not be drawn");
        } else {
            let mean = share * DRAWS as f64;
            statistic += (count - mean) * (count - mean) / mean;
        }
    }
    let freedom = expected.iter().filter(|share| **share > 0.0).count() as f64 - 1.0;
    // Wilson and Hilferty's approximation of the quantile 1 - 1e-6.
    let spread = 2.0 / (9.0 * freedom);
    let limit = freedom * (1.0 - spread + 4.753 * spread.sqrt()).powi(3);
    assert!(statistic < limit, "chi-squared {statistic} at {freedom} degrees: {counts:?}");
}

#[test]
fn draws_of_every_rule_follow_its_distribution() {
    let logits = || LOGITS.iter().map(|logit| f64::from(*logit));
    check(&sampled(), &exponentials(logits()));
    let hot = Generation { temperature: 1.7, ..sampled() };
    check(&hot, &exponentials(logits().map(|logit| logit / 1.7)));

    // The four largest are tokens 9, 2, 0 and 6.
    let four = Generation { top_k: 4, ..sampled() };
    let largest = |token: usize| [9, 2, 0, 6].contains(&token);
    let kept =
        logits().enumerate().map(|(token, logit)| if largest(token) { logit.exp() } else { 0.0 });
    check(&four, &normal(&kept.collect::<Vec<_>>()));

    // From the likeliest down until .8 is passed, the one that passes it included.
    let whole = exponentials(logits());
    let mut order: Vec<usize> = (0..LOGITS.len()).collect();
    order.sort_by(|a, b| whole[*b].total_cmp(&whole[*a]));
    let mut nucleus = vec![0.0; LOGITS.len()];
    let mut sum = 0.0;
    for token in order {
        if sum <= 0.8 {
            nucleus[token] = whole[token];
        }
        sum += whole[token];
    }
    assert!(nucleus.iter().filter(|share| **share > 0.0).count() > 3);
    check(&Generation { top_p: 0.8, ..sampled() }, &normal(&nucleus));

    let penalized = logits().enumerate().map(|(token, logit)| match token {
        9 => logit / 1.5,
        8 => logit * 1.5,
        _ => logit,
    });
    let penalty = Generation { repetition_penalty: 1.5, ..sampled() };
    check(&penalty, &exponentials(penalized));
}
