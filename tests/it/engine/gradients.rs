//! Every parameter's gradient against finite differences in f64.

use super::{
    assert_close, f64_model, gpt, gradients, half_rope, learn, llama, micro_batch, with_dropout,
};
use sft_run::base::seed::Stream;
use sft_run::model::Model;
use sft_run::model::weights::Weights;
use sft_run::spec::architecture::{Activation, Architecture, Normalization};

fn check(architecture: &Architecture) {
    check_with(architecture, 1e-5);
}

/// Along a random direction in each parameter, the slope of the loss is the gradient's.
fn check_with(architecture: &Architecture, step: f64) {
    let model = f64_model(architecture);
    let batch = micro_batch(0..3);
    learn(&model, &batch);
    let gradient = gradients(&model);
    let values: Vec<f64> = model.weights().values().to_vec1().unwrap();
    for (parameter, range) in model.weights().parameters() {
        let direction = Stream::new(8, &parameter.name);
        let moved = |step: f64| {
            let mut values = values.clone();
            for index in range.clone() {
                values[index] += step * direction.normal(index as u64);
            }
            let weights = Weights::new(architecture, values).unwrap();
            learn(&Model::new(architecture, weights).unwrap(), &batch)
        };
        let slope = (moved(step) - moved(-step)) / (2.0 * step);
        let expected: f64 =
            range.clone().map(|index| gradient[index] * direction.normal(index as u64)).sum();
        assert_close(slope, expected, 1e-6, &parameter.name);
    }
}

#[test]
fn of_a_gpt() {
    check(&gpt());
}

#[test]
fn of_a_llama() {
    check(&llama());
}

#[test]
fn of_half_turned_heads_and_layernorm1p() {
    check(&half_rope());
}

#[test]
fn of_a_parallel_residual() {
    let parallel = |model| Architecture { use_parallel_residual: true, ..model };
    check(&parallel(llama()));
    check(&with_dropout(&parallel(gpt())));
}

#[test]
fn with_all_three_dropouts() {
    check(&with_dropout(&gpt()));
    check(&with_dropout(&half_rope()));
}

#[test]
fn of_the_other_activations() {
    for activation in [Activation::GeluErf, Activation::SquaredRelu] {
        check(&Architecture { activation, num_layers: 1, ..gpt() });
    }
    // A step that is small enough for no unit to cross the kink at zero.
    let normalization = Normalization::Layernorm1p;
    let relu = Architecture { activation: Activation::Relu, normalization, num_layers: 1, ..gpt() };
    check_with(&relu, 1e-7);
    check_with(&Architecture { activation: Activation::Reglu, num_layers: 1, ..llama() }, 1e-7);
}

#[test]
fn a_loss_adds_to_the_gradients_that_are_there() {
    let model = f64_model(&llama());
    learn(&model, &micro_batch(0..2));
    let first = gradients(&model);
    learn(&model, &micro_batch(0..2));
    for (twice, once) in gradients(&model).iter().zip(&first) {
        assert_close(*twice, 2.0 * once, 1e-12, "gradient");
    }
}
