//! Decoding with cached keys and values against reading everything again for every token.

use super::sampling::greedy;
use super::small_model::{NoTexts, learned, random, rotary};
use candle_core::DType;
use sft_run::engine::generation::{Cached, NewTokens, Predictor, Request, Rules, decode};
use sft_run::engine::replica::Member;
use sft_run::engine::scoring::{Scored, score};
use sft_run::model::Model;
use sft_run::model::batch::Batch;
use sft_run::spec::architecture::Architecture;
use sft_run::spec::generation::Generation;
use std::sync::atomic::AtomicBool;

pub(super) const VOCAB: usize = 61;

pub(super) fn prompts() -> Vec<Vec<u32>> {
    let prompt = |number: u32| (0..=(number * 5 % 13)).map(move |at| (number * 17 + at * 7) % 61);
    (0..11).map(|number| prompt(number).collect()).collect()
}

/// Logits after the last token, everything read at once.
fn logits(model: &Model, tokens: &[u32]) -> Vec<f32> {
    let positions: Vec<u32> = (0..tokens.len() as u32).collect();
    let starts = [0, tokens.len()];
    let batch = Batch { tokens, positions: &positions, starts: &starts, addresses: &[] };
    let logits = model.logits(&batch, &[tokens.len() as u32 - 1]).expect("a forward pass");
    let logits = logits.to_dtype(DType::F32).expect("a float").flatten_all().expect("a row");
    logits.to_vec1::<f32>().expect("numbers")[..VOCAB].to_vec()
}

fn check_greedy(architecture: &Architecture, batch_size: usize) {
    let model = random(architecture);
    let member = Member::alone(&model).expect("one rank");
    let (stop, prompts) = (AtomicBool::new(false), prompts());
    let results = |compute_logprob| {
        let settings = Generation { max_length: 9, batch_size, compute_logprob, ..greedy() };
        let request = Request {
            prompts: &prompts,
            rules: &Rules::new(&settings, VOCAB, None).expect("legal settings"),
            vocabulary: &NoTexts,
            stop: &stop,
            share: (0, 1),
        };
        let mut cached =
            Cached::new(member.whole().expect("one rank"), batch_size, &[32; 16]).expect("a cache");
        decode(&mut cached, &request, &mut |_| ()).expect("decodes")
    };
    // Where log-probabilities are asked for, too, the token is chosen from all logits.
    let (results, with_logits) = (results(false), results(true));
    for (result, with_logits) in results.iter().zip(with_logits) {
        assert_eq!((&result.tokens, 9), (&with_logits.tokens, with_logits.logprob.len()));
    }
    let mut different = std::collections::BTreeSet::new();
    for (prompt, result) in prompts.iter().zip(results) {
        let mut tokens = prompt.clone();
        for _ in 0..9 {
            let logits = logits(&model, &tokens);
            let best = (0..VOCAB).max_by(|a, b| logits[*a].total_cmp(&logits[*b]));
            tokens.push(best.expect("a token") as u32);
        }
        assert_eq!(result.tokens, tokens[prompt.len()..], "after {prompt:?}");
        different.extend(result.tokens);
    }
    assert!(different.len() > 10, "the model says too little for a test: {different:?}");
}

#[test]
fn greedy_with_a_cache_equals_greedy_without() {
    for architecture in [learned(VOCAB), rotary(VOCAB)] {
        for batch_size in [1, 3, 16] {
            check_greedy(&architecture, batch_size);
        }
    }
}

#[test]
fn cached_logits_are_those_of_a_full_pass() {
    for architecture in [learned(VOCAB), rotary(VOCAB)] {
        let model = random(&architecture);
        let member = Member::alone(&model).expect("one rank");
        let mut cached =
            Cached::new(member.whole().expect("one rank"), 2, &[32; 2]).expect("a cache");
        let [first, second] = [vec![3, 1, 4, 1, 5, 9, 2, 6], vec![2, 7, 1]];
        let read = |cached: &mut Cached<'_>, rows: &[NewTokens<'_>]| {
            let logits = cached.extend(rows).expect("a forward pass");
            let rows = logits.values.chunks_exact(logits.width);
            rows.map(|row| row[..VOCAB].to_vec()).collect::<Vec<_>>()
        };
        read(&mut cached, &[NewTokens { row: 1, tokens: &first[..3] }]);
        // A row's first tokens and another row's later ones in one pass.
        let rows =
            [NewTokens { row: 1, tokens: &first[3..] }, NewTokens { row: 0, tokens: &second }];
        let together = read(&mut cached, &rows);
        close(&together[0], &logits(&model, &first));
        close(&together[1], &logits(&model, &second));
        // A released row starts again.
        cached.release(1);
        let again = read(&mut cached, &[NewTokens { row: 1, tokens: &second }]);
        close(&again[0], &logits(&model, &second));
    }
}

#[test]
fn rows_share_room_and_give_it_back() {
    let model = random(&rotary(VOCAB));
    let member = Member::alone(&model).expect("one rank");
    let text: Vec<u32> = (0..40).map(|at| at * 7 % 61).collect();
    // Blocks have 32 tokens: three of them for the two longest.
    let mut cached =
        Cached::new(member.whole().expect("one rank"), 2, &[10, 40, 10]).expect("a cache");
    let read = |cached: &mut Cached<'_>, row: usize, tokens: &[u32]| {
        let logits = cached.extend(&[NewTokens { row, tokens }]).map_err(|error| error.to_string());
        logits.map(|logits| logits.values[..VOCAB].to_vec())
    };
    read(&mut cached, 1, &text[..10]).expect("a block");
    close(&read(&mut cached, 0, &text).expect("two blocks"), &logits(&model, &text));
    let error = read(&mut cached, 1, &text[10..]).expect_err("a fourth block");
    assert!(error.contains("no block is left for row 1, which has 40 tokens"), "{error}");
    // Row 1 goes on in blocks that were row 0's.
    cached.release(0);
    cached.release(1);
    read(&mut cached, 1, &text[..35]).expect("two blocks");
    close(&read(&mut cached, 1, &text[35..]).expect("no more"), &logits(&model, &text));
}

fn close(left: &[f32], right: &[f32]) {
    let far = left.iter().zip(right).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
    assert!(far < 1e-4, "{far} apart");
}

#[test]
fn scores_are_log_probabilities_of_the_marked_tokens() {
    let model = random(&learned(VOCAB));
    let member = Member::alone(&model).expect("one rank");
    let replica = member.whole().expect("one rank");
    let prompts: Vec<Vec<u32>> = prompts().into_iter().filter(|prompt| prompt.len() > 2).collect();
    let learned: Vec<Vec<bool>> =
        prompts.iter().map(|prompt| (0..prompt.len()).map(|at| at % 3 != 1).collect()).collect();
    let sequences: Vec<Scored<'_>> =
        prompts.iter().zip(&learned).map(|(tokens, learned)| Scored { tokens, learned }).collect();
    let stop = AtomicBool::new(false);
    let together = score(replica, &sequences, &stop, |_| ()).expect("a forward pass");
    for (sequence, sums) in sequences.iter().zip(&together) {
        let (mut loss, mut count, mut correct) = (0.0, 0, 0);
        for at in (1..sequence.tokens.len()).filter(|at| sequence.learned[*at]) {
            let logits = logits(&model, &sequence.tokens[..at]);
            let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let sum: f64 = logits.iter().map(|logit| f64::from(logit - largest).exp()).sum();
            let label = logits[sequence.tokens[at] as usize];
            loss -= f64::from(label - largest) - sum.ln();
            count += 1;
            correct += u64::from(label >= largest);
        }
        assert!((sums.loss_sum - loss).abs() < 1e-4, "{} and {loss}", sums.loss_sum);
        assert_eq!((sums.tokens, sums.correct), (count, correct));
        let alone = score(replica, &[*sequence], &stop, |_| ()).expect("a forward pass");
        assert!((alone[0].loss_sum - sums.loss_sum).abs() < 1e-5, "neighbours change nothing");
    }
}
