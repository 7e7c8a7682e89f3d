//! Packing, micro-batches and cached decoding change nothing but the order of sums.

use super::{
    SEQ_LENGTH, assert_close, f32_model, f64_model, gpt, gradients, half_rope, learn, llama,
    micro_batch, sequence, with_dropout,
};
use sft_run::data::microbatch::MicroBatch;
use sft_run::data::sequences::Sequence;
use sft_run::engine::replica::Member;
use sft_run::engine::step::{targets, view};
use sft_run::model::Model;
use sft_run::model::batch::Targets;

/// Log-probabilities of the learned tokens, in order.
fn log_probabilities(model: &Model, batch: &MicroBatch) -> Vec<f64> {
    let (places, labels) = targets(batch);
    let targets = Targets::new(&places, &labels);
    let member = Member::alone(model).unwrap();
    let scores = member.whole().unwrap().scores(&view(batch), &targets).unwrap();
    scores.iter().map(|score| score.log_probability).collect()
}

/// The samples of a sequence, each as a sequence of its own.
fn unpacked(sequence: &Sequence) -> Vec<Sequence> {
    let sample = |bounds: &[usize]| {
        let range = bounds[0]..bounds[1];
        Sequence {
            tokens: sequence.tokens[range.clone()].to_vec(),
            labels: sequence.labels[range.clone()].to_vec(),
            loss_mask: sequence.loss_mask[range.clone()].to_vec(),
            positions: sequence.positions[range.clone()].to_vec(),
            segments: vec![0, range.len()],
        }
    };
    sequence.segments.windows(2).map(sample).collect()
}

#[test]
fn packed_equals_unpacked_sample_by_sample() {
    for architecture in [gpt(), llama(), half_rope()] {
        let model = f32_model(&architecture);
        let packed = log_probabilities(&model, &micro_batch(0..8));
        let alone = (0..8).flat_map(|number| unpacked(&sequence(number))).flat_map(|sample| {
            log_probabilities(&model, &MicroBatch::assemble(&[(0, sample)], SEQ_LENGTH))
        });
        let alone: Vec<f64> = alone.collect();
        assert_eq!(packed.len(), alone.len());
        for (packed, alone) in packed.iter().zip(alone) {
            assert_close(*packed, alone, 1e-5, "log-probability");
        }
    }
}

#[test]
fn the_micro_batch_size_changes_neither_loss_nor_gradient() {
    // Dropout is addressed by the token's place in the run, so it may be on.
    for architecture in [with_dropout(&gpt()), llama()] {
        let whole = f32_model(&architecture);
        let expected = learn(&whole, &micro_batch(0..8));
        let expected_gradient: Vec<f32> = whole.weights().gradients().to_vec1().unwrap();
        let largest = expected_gradient.iter().fold(0.0_f32, |max, value| max.max(value.abs()));
        for size in [1, 2, 4] {
            let model = f32_model(&architecture);
            let loss: f64 = (0..8)
                .step_by(size)
                .map(|first| learn(&model, &micro_batch(first..first + size as u64)))
                .sum();
            assert_close(loss, expected, 1e-5, "loss");
            let gradient: Vec<f32> = model.weights().gradients().to_vec1().unwrap();
            assert_eq!(gradient.len(), expected_gradient.len());
            for (value, expected) in gradient.iter().zip(&expected_gradient) {
                assert!((value - expected).abs() <= 1e-5 * largest, "{value} and {expected}");
            }
        }
    }
}

#[test]
fn dropout_drops_and_leaves_the_mean() {
    let (plain, dropped) = (f64_model(&gpt()), f64_model(&with_dropout(&gpt())));
    let batch = micro_batch(0..8);
    assert_ne!(learn(&plain, &batch), learn(&dropped, &batch));
    assert_ne!(gradients(&plain), gradients(&dropped));
    // Outside training nothing is dropped.
    assert_eq!(log_probabilities(&plain, &batch), log_probabilities(&dropped, &batch));
}

#[test]
fn a_decoder_gives_the_logits_of_the_whole_text() {
    for architecture in [gpt(), llama(), half_rope()] {
        let model = f64_model(&architecture);
        let batch = micro_batch(0..2);
        let texts: Vec<&[u32]> =
            batch.segments.windows(2).map(|bounds| &batch.tokens[bounds[0]..bounds[1]]).collect();
        let ends: Vec<u32> = batch.segments[1..].iter().map(|end| *end as u32 - 1).collect();
        let expected: Vec<Vec<f64>> =
            model.logits(&view(&batch), &ends).unwrap().to_vec2().unwrap();

        let member = Member::alone(&model).unwrap();
        let mut decoder =
            member.whole().unwrap().reader(texts.len(), &vec![SEQ_LENGTH; texts.len()]).unwrap();
        let mut last = vec![Vec::new(); texts.len()];
        // Rows come and go: each reads its first token alone, the rest one by one, all together.
        for place in 0..texts.iter().map(|text| text.len()).max().unwrap() {
            let rows: Vec<(usize, &[u32])> = (0..texts.len())
                .filter(|row| place < texts[*row].len())
                .map(|row| (row, &texts[row][place..=place]))
                .collect();
            let logits: Vec<Vec<f64>> = decoder.extend(&rows).unwrap().to_vec2().unwrap();
            assert_eq!(rows.len(), logits.len());
            for ((row, _), logits) in rows.iter().zip(logits) {
                last[*row] = logits;
            }
        }
        // And a row that was released reads another text as a whole.
        decoder.release(0);
        let again: Vec<Vec<f64>> =
            decoder.extend(&[(0, texts[texts.len() - 1])]).unwrap().to_vec2().unwrap();
        last.push(again[0].clone());
        let mut expected = expected;
        expected.push(expected[texts.len() - 1].clone());
        assert_eq!(last.len(), expected.len());
        for (found, expected) in last.iter().zip(&expected) {
            assert_eq!(found.len(), expected.len());
            for (found, expected) in found.iter().zip(expected) {
                assert!((found - expected).abs() < 1e-10, "{found} and {expected}");
            }
        }
    }
}

#[test]
fn a_token_outside_the_vocabulary_is_refused() {
    let model = f64_model(&gpt());
    let mut batch = micro_batch(0..1);
    batch.tokens[0] = 30;
    let error = model.logits(&view(&batch), &[0]).unwrap_err().to_string();
    assert!(error.contains("token 30 is not below the vocabulary's size 29"), "{error}");
}
