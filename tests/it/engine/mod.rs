//! The model and the engine: gradients, batch cuts, the loop, resuming.

// Every parameter's gradient against finite differences in f64.
mod gradients;
// Packing, micro-batches and cached decoding change nothing.
mod classifiers;
mod cuts;
// Recomputation: the same bits, and the memory that the plan promises.
mod recompute;
// Tensor, sequence and data parallelism against one rank; failing ranks.
mod layouts;
// The calls by which replicas add up gradients.
mod gradient_reduction;
// Every pair of ways to train together, and what is refused.
mod pairwise;
// The loop over several ranks: journals, checkpoints, resuming on another layout, failing ranks.
mod ranks;
// The loop: validation, checkpoints, stopping, resuming to the bit, errors.
mod training;
// Frozen parameters keep their bits, the others learn as ever.
mod frozen;
// Damaged checkpoints, other data, what is kept.
mod interruptions;
// bf16, fp16, autocast and fp32 masters.
mod precision;

use sft_run::data::microbatch::MicroBatch;
use sft_run::data::sequences::Sequence;
use sft_run::engine::step::{targets, view};
use sft_run::model::Model;
use sft_run::model::batch::{Noise, Targets};
use sft_run::model::weights::{Weights, start_values};
use sft_run::spec::architecture::{Activation, Architecture, Normalization, PositionEmbedding};
use sft_run::spec::optimization::{Optimizer, OptimizerName};

/// A small GPT with learned positions, layernorm, gelu, biases and a tied head.
pub(crate) fn gpt() -> Architecture {
    Architecture {
        num_layers: 2,
        hidden_size: 16,
        ffn_hidden_size: 24,
        num_attention_heads: 4,
        num_query_groups: 4,
        kv_channels: 4,
        vocab_size: 29,
        padded_vocab_size: 32,
        max_position_embeddings: 24,
        position_embedding_type: PositionEmbedding::LearnedAbsolute,
        rotary_percentage: 1.0,
        rotary_base: 10000.0,
        seq_len_interpolation_factor: None,
        normalization: Normalization::Layernorm,
        layernorm_epsilon: 1e-5,
        activation: Activation::Gelu,
        bias: true,
        share_embeddings_and_output_weights: true,
        use_parallel_residual: false,
        hidden_dropout: 0.0,
        attention_dropout: 0.0,
        ffn_dropout: 0.0,
        init_method_std: 0.2,
        use_scaled_init_method: true,
    }
}

/// A small LLaMA with grouped queries and heads wider than `hidden / heads`.
fn llama() -> Architecture {
    Architecture {
        num_query_groups: 2,
        kv_channels: 6,
        position_embedding_type: PositionEmbedding::Rope,
        normalization: Normalization::Rmsnorm,
        activation: Activation::Swiglu,
        bias: false,
        share_embeddings_and_output_weights: false,
        use_parallel_residual: false,
        ..gpt()
    }
}

/// As `megatron_2b`: half of each head turns, layernorm1p.
fn half_rope() -> Architecture {
    Architecture {
        kv_channels: 8,
        num_query_groups: 1,
        rotary_percentage: 0.5,
        seq_len_interpolation_factor: Some(2.0),
        normalization: Normalization::Layernorm1p,
        activation: Activation::Geglu,
        bias: true,
        ..llama()
    }
}

/// Dropout in all three places.
fn with_dropout(architecture: &Architecture) -> Architecture {
    Architecture {
        hidden_dropout: 0.2,
        attention_dropout: 0.1,
        ffn_dropout: 0.3,
        ..architecture.clone()
    }
}

fn f32_model(architecture: &Architecture) -> Model {
    let values: Vec<f32> = start_values(architecture, 3);
    Model::new(architecture, Weights::new(architecture, values).unwrap()).unwrap()
}

fn f64_model(architecture: &Architecture) -> Model {
    // Start values of biases and norms would hide errors: shake everything.
    let mut values: Vec<f64> = start_values(architecture, 3);
    let shake = sft_run::base::seed::Stream::new(4, "shake");
    for (index, value) in values.iter_mut().enumerate() {
        *value += 0.1 * shake.normal(index as u64);
    }
    Model::new(architecture, Weights::new(architecture, values).unwrap()).unwrap()
}

/// Sequence `number` of a made-up data set: 1 to 3 samples of unequal length, answers learned.
fn sequence(number: u64) -> Sequence {
    let stream = sft_run::base::seed::Stream::new(9, &format!("sequence/{number}"));
    let mut sequence = Sequence::new();
    let mut at = 0;
    let mut draw = |below: u64| {
        at += 1;
        stream.word(at) % below
    };
    for _ in 0..=draw(3) {
        let (prompt, answer) = (1 + draw(4), 1 + draw(3));
        let ids: Vec<u32> = (0..prompt + answer).map(|_| draw(29) as u32).collect();
        let learned: Vec<bool> = (0..prompt + answer).map(|place| place >= prompt).collect();
        sequence.push_sample(&ids, &learned);
    }
    sequence
}

/// Longest that [`sequence`] can be.
const SEQ_LENGTH: usize = 18;

fn micro_batch(numbers: std::ops::Range<u64>) -> MicroBatch {
    let sequences: Vec<_> = numbers.map(|number| (number, sequence(number))).collect();
    MicroBatch::assemble(&sequences, SEQ_LENGTH)
}

/// Loss sum of one micro-batch; adds its gradients.
fn learn(model: &Model, batch: &MicroBatch) -> f64 {
    let (places, labels) = targets(batch);
    let targets = Targets::new(&places, &labels);
    model.learn(&view(batch), &targets, Noise { seed: 1, step: 5 }).unwrap()
}

fn gradients(model: &Model) -> Vec<f64> {
    model.weights().gradients().to_vec1().unwrap()
}

fn optimizer() -> Optimizer {
    Optimizer {
        name: OptimizerName::Adamw,
        lr: 0.01,
        weight_decay: 0.1,
        betas: [0.9, 0.95],
        eps: 1e-8,
        do_layer_norm_weight_decay: false,
        sched: None,
    }
}

/// `|a - b|` is at most `tolerance` of the larger.
fn assert_close(a: f64, b: f64, tolerance: f64, what: &str) {
    let scale = a.abs().max(b.abs()).max(1e-12);
    assert!((a - b).abs() <= tolerance * scale, "{what}: {a} and {b}");
}
