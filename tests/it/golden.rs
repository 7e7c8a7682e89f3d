//! The first 20 training steps against the float64 reference of `tests/golden/make_reference.py`.

use safetensors::SafeTensors;
use serde::Deserialize;
use sft_run::data::microbatch::MicroBatch;
use sft_run::data::sequences::Sequence;
use sft_run::engine::optimizer::OptimizerState;
use sft_run::engine::step::{Settings, Trainer};
use sft_run::model::Model;
use sft_run::model::weights::Weights;
use sft_run::spec::architecture::Architecture;
use sft_run::spec::optimization::Optimizer;
use std::path::PathBuf;

#[derive(Deserialize)]
struct Record {
    architecture: Architecture,
    optim: Optimizer,
    gradient_clip_val: f64,
    batches: Vec<Vec<Vec<Sample>>>,
    losses: Vec<f64>,
    grad_norms: Vec<f64>,
    learning_rates: Vec<f64>,
}

#[derive(Deserialize)]
struct Sample {
    tokens: Vec<u32>,
    learn: Vec<u8>,
}

#[test]
fn learned_positions_layernorm_gelu_tied_head() {
    check("learned_layernorm_gelu_tied");
}

#[test]
fn rotary_rmsnorm_swiglu_grouped_queries() {
    check("rope_rmsnorm_swiglu_grouped");
}

#[test]
fn half_rotary_layernorm1p() {
    check("half_rope_layernorm1p");
}

#[test]
fn interpolated_rotary_geglu_one_group() {
    check("interpolated_rope_geglu_one_group");
}

/// Losses and gradient norms of every step to 1e-4 relative, at every micro-batch size.
fn check(case: &str) {
    let record = record(case);
    for micro_batch_size in [1, 2, 4] {
        let mut trainer = trainer(case, &record);
        for (done, batch) in record.batches.iter().enumerate() {
            let micro_batches = batch.chunks(micro_batch_size).map(micro_batch).collect::<Vec<_>>();
            let step = trainer
                .step(done as u64, micro_batches.len(), |number| Ok(micro_batches[number].clone()))
                .expect("a step");
            let place = format!("{case}, micro-batch {micro_batch_size}, step {done}");
            close(step.loss, record.losses[done], &place);
            close(step.grad_norm, record.grad_norms[done], &place);
            close(step.learning_rate, record.learning_rates[done], &place);
        }
    }
}

fn close(ours: f64, reference: f64, place: &str) {
    let difference = (ours - reference).abs();
    assert!(difference <= 1e-4 * reference.abs(), "{place}: {ours} is not {reference}");
}

fn record(case: &str) -> Record {
    let text = std::fs::read_to_string(file(&format!("{case}.json"))).expect("the record");
    serde_json::from_str(&text).expect("a record")
}

fn file(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "golden", name].iter().collect()
}

fn trainer(case: &str, record: &Record) -> Trainer {
    let bytes = std::fs::read(file(&format!("{case}.safetensors"))).expect("the weights");
    let tensors = SafeTensors::deserialize(&bytes).expect("safetensors");
    let table = sft_run::layout::parameters::table(&record.architecture);
    let mut values: Vec<f32> = Vec::new();
    for parameter in &table {
        let tensor = tensors.tensor(&parameter.name).expect("a tensor of this name");
        assert_eq!(tensor.shape(), parameter.shape, "{}", parameter.name);
        let numbers = tensor.data().chunks_exact(4);
        values.extend(numbers.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])));
    }
    assert_eq!(tensors.len(), table.len(), "tensors without a parameter");
    let weights = Weights::new(&record.architecture, values).expect("weights");
    let optimizer =
        OptimizerState::new(&record.optim, &weights, weights.values()).expect("optimizer");
    let model = Model::new(&record.architecture, weights).expect("model");
    let settings = Settings {
        optimizer: record.optim.clone(),
        gradient_clip_val: record.gradient_clip_val,
        seed: 0,
        loss_scaler: None,
    };
    Trainer::new(model, optimizer, settings)
}

fn micro_batch(sequences: &[Vec<Sample>]) -> MicroBatch {
    let sequence = |samples: &Vec<Sample>| {
        let mut sequence = Sequence::new();
        for sample in samples {
            let learned = sample.learn.iter().map(|learn| *learn == 1).collect::<Vec<_>>();
            sequence.push_sample(&sample.tokens, &learned);
        }
        sequence
    };
    let numbered: Vec<_> = (0..).zip(sequences.iter().map(sequence)).collect();
    MicroBatch::assemble(&numbered, 64)
}
