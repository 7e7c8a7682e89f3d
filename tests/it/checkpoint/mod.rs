//! Checkpoints: the native form, resharding, damage.

mod foreign;
mod native;
mod reshard;

use sft_run::checkpoint::manifest::{Progress, Training};
use sft_run::checkpoint::whole::{self, State};
use sft_run::layout::parameters::element_count;
use sft_run::model::Model;
use sft_run::model::weights::start_values;
use sft_run::spec::architecture::{Activation, Architecture, Normalization, padded_vocab_size};
use std::path::Path;

/// A shape that four tensor ranks and four pipeline stages can share.
fn architecture() -> Architecture {
    Architecture {
        num_layers: 4,
        hidden_size: 12,
        ffn_hidden_size: 20,
        num_attention_heads: 8,
        num_query_groups: 4,
        kv_channels: 2,
        vocab_size: 13,
        padded_vocab_size: padded_vocab_size(13, 4, 1),
        max_position_embeddings: 8,
        normalization: Normalization::Layernorm1p,
        activation: Activation::Swiglu,
        share_embeddings_and_output_weights: false,
        init_method_std: 0.02,
        ..crate::engine::gpt()
    }
}

/// Parameters in the table's order.
fn values() -> Vec<f32> {
    let mut values = start_values::<f32>(&architecture(), 5);
    // Zeros and ones would hide what is swapped; padding stays zero.
    let places = values.len();
    for (place, value) in values.iter_mut().enumerate() {
        let bias = place as f32 / places as f32;
        *value += if *value == 0.0 { 0.0 } else { bias };
    }
    values
}

/// The model with its optimizer state as folder `target`.
fn save(target: &Path) {
    let model = model();
    let first = (model.weights().values() * 2.0).unwrap();
    let second = (model.weights().values() * 3.0).unwrap();
    let job = serde_json::json!({"lr": 0.1});
    let training = Training { seed: 3, job, next_batch: None, score: None, loss_scale: None };
    let progress = Progress { step: 3, consumed_samples: 24 };
    let parameters = model.weights().values();
    let moments = Some([&first, &second]);
    let state = State { model: &model, parameters, moments, training: Some(training) };
    whole::save_state(target, &state, progress).unwrap();
    assert_eq!(values().len(), element_count(&architecture()));
}

fn model() -> Model {
    whole::build(&architecture(), values()).unwrap()
}
