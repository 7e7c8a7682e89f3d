//! Cross entropy.

use super::{assert_close, autograd, f32_of, random, var};
use candle_core::{D, Device, Tensor};
use sft_run::kernels::cross_entropy::{self, Statistics, Targets};

fn labels(rows: usize, vocab_size: usize) -> Vec<u32> {
    (0..rows).map(|row| (row * 7 % vocab_size) as u32).collect()
}

/// Σ -log p(label), from candle's plain operations.
fn oracle(logits: &Tensor, labels: &[u32], vocab_size: usize) -> Tensor {
    let real = logits.narrow(1, 0, vocab_size).unwrap();
    let log_sum = real.exp().unwrap().sum_keepdim(D::Minus1).unwrap().log().unwrap();
    let ids = Tensor::new(labels, &Device::Cpu).unwrap().unsqueeze(1).unwrap();
    let label = real.contiguous().unwrap().gather(&ids, 1).unwrap();
    (log_sum - label).unwrap().sum_all().unwrap()
}

fn check(rows: usize, columns: usize, vocab_size: usize) {
    let logits = var("logits", (rows, columns));
    let labels = labels(rows, vocab_size);
    let expected = oracle(&logits, &labels, vocab_size);
    let gradient = autograd(&expected, &expected.ones_like().unwrap(), &logits);

    let values = logits.copy().unwrap();
    let loss = cross_entropy::forward_backward(&values, &labels, vocab_size, 1.0).unwrap();
    assert_close(&Tensor::new(loss, &Device::Cpu).unwrap(), &expected, 1e-13);
    assert_close(&values, &gradient, 1e-13);

    let values = f32_of(&logits);
    let loss = cross_entropy::forward_backward(&values, &labels, vocab_size, 1.0).unwrap();
    assert_close(&Tensor::new(loss, &Device::Cpu).unwrap(), &expected, 1e-6);
    assert_close(&values, &gradient, 1e-6);
}

#[test]
fn loss_and_gradient_agree_with_autograd() {
    for (rows, columns, vocab_size) in [(1, 3, 2), (3, 5, 4), (70, 128, 100), (33, 640, 640)] {
        check(rows, columns, vocab_size);
    }
}

#[test]
fn parts_of_the_vocabulary_combine() {
    let (rows, vocab_size) = (9, 25);
    let (logits, labels) = (random("logits", (rows, 30)), labels(rows, vocab_size));
    let whole = logits.copy().unwrap();
    let loss = cross_entropy::forward_backward(&whole, &labels, vocab_size, 1.0).unwrap();
    // The third part holds padding only.
    let parts: Vec<_> = [0, 13, 26]
        .map(|first| {
            let width = 13.min(30 - first);
            (logits.narrow(1, first, width).unwrap().contiguous().unwrap(), first)
        })
        .into();
    let targets = |first| Targets { labels: &labels, first, vocab_size };
    let all: Vec<_> = parts
        .iter()
        .map(|(part, first)| cross_entropy::statistics(part, &targets(*first)).unwrap())
        .collect();
    let travelling: Vec<_> = all.iter().map(|part| part.travelling().unwrap()).collect();
    let combined = Statistics::merged(&Tensor::cat(&travelling, 0).unwrap(), 3).unwrap();
    let sum_of = |statistics| cross_entropy::loss_sum(statistics, &targets(0));
    assert!((sum_of(&combined).unwrap() - loss).abs() < 1e-12);
    assert!(sum_of(&all[0]).is_err(), "a part alone lacks labels");
    for (part, first) in &parts {
        cross_entropy::gradient_in_place(part, &targets(*first), &combined, 1.0).unwrap();
        let width = part.dim(1).unwrap();
        assert_close(part, &whole.narrow(1, *first, width).unwrap(), 1e-13);
    }
}

#[test]
fn a_sum_that_is_no_number_stays_so() {
    // The part with the smaller maximum has it: beside the other's it would count next to nothing.
    let parts = [[9.0_f32, 8.0], [1.0, f32::NAN]];
    let targets = |first| Targets { labels: &[0], first, vocab_size: 4 };
    let travelling = [0, 1].map(|part| {
        let logits = Tensor::new(&[parts[part]], &Device::Cpu).unwrap();
        cross_entropy::statistics(&logits, &targets(2 * part)).unwrap().travelling().unwrap()
    });
    let merged = Statistics::merged(&Tensor::cat(&travelling, 0).unwrap(), 2).unwrap();
    assert!(cross_entropy::loss_sum(&merged, &targets(0)).unwrap().is_nan());
}

#[test]
fn scores_say_how_likely_and_whether_first() {
    let logits = Tensor::new(&[[1.0, 3.0, 9.0], [2.0, 2.0, 0.0]], &Device::Cpu).unwrap();
    let scores = cross_entropy::scores(&logits, &[1, 1], 2).unwrap();
    assert!(scores[0].is_argmax && !scores[1].is_argmax, "the lowest id wins a tie");
    assert!((scores[0].log_probability + (1.0 + (-2.0_f64).exp()).ln()).abs() < 1e-12);
    assert!((scores[1].log_probability - 0.5_f64.ln()).abs() < 1e-12);
}

#[test]
fn huge_logits_do_not_overflow() {
    let logits = Tensor::new(&[[9e4_f32, 0.0, -9e4]], &Device::Cpu).unwrap();
    let loss = cross_entropy::forward_backward(&logits, &[1], 3, 1.0).unwrap();
    assert!((loss - 9e4).abs() < 1e-2, "{loss}");
    assert_close(&logits, &Tensor::new(&[[1.0, -1.0, 0.0]], &Device::Cpu).unwrap(), 1e-6);
}
