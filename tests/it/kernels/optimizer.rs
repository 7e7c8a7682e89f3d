//! AdamW and whole-buffer operations.

use super::{assert_close, f32_of, numbers, random, zeros};
use candle_core::{Device, Tensor, Var};
use candle_nn::optim::{AdamW as CandleAdamW, Optimizer, ParamsAdamW};
use sft_run::kernels::masters::Masters;
use sft_run::kernels::optimizer::{self, AdamW, Buffers};
use sft_run::kernels::reduce;

/// Decays in the ranges of a step, and of two candle's steps, one of which decays everywhere.
#[test]
fn adamw_takes_the_steps_that_candle_takes() {
    let count = 20_001;
    let decaying = [0..7, 1_000..17_003, 20_000..20_001];
    let start = random("p", count);
    let oracle = |weight_decay| {
        let settings = ParamsAdamW { lr: 1e-2, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay };
        let values = Var::from_tensor(&start.copy().unwrap()).unwrap();
        (CandleAdamW::new(vec![values.clone()], settings).unwrap(), values)
    };
    let mut oracles = [oracle(0.0), oracle(0.1)];
    let (parameters, first, second) = (start.copy().unwrap(), zeros(count), zeros(count));
    let narrow = [f32_of(&parameters), f32_of(&first), f32_of(&second)];
    for step in 1..=5 {
        let gradients = random(&format!("g{step}"), count);
        for (oracle, values) in &mut oracles {
            let loss = (values.as_tensor() * (&gradients * 0.5).unwrap()).unwrap();
            oracle.step(&loss.sum_all().unwrap().backward().unwrap()).unwrap();
        }
        let settings = AdamW {
            learning_rate: 1e-2,
            betas: [0.9, 0.95],
            epsilon: 1e-8,
            weight_decay: 0.1,
            step,
            gradient_scale: 0.5,
        };
        let take = |parameters: &Tensor, gradients: &Tensor, first: &Tensor, second: &Tensor| {
            let [first_moment, second_moment] = [first, second];
            let (masters, decaying) = (&Masters::Nothing, &decaying[..]);
            let buffers =
                Buffers { parameters, masters, gradients, first_moment, second_moment, decaying };
            optimizer::step(&buffers, &settings).unwrap();
        };
        take(&parameters, &gradients, &first, &second);
        take(&narrow[0], &f32_of(&gradients), &narrow[1], &narrow[2]);
    }
    let [still, decayed] = oracles.map(|(_, values)| numbers(values.as_tensor()));
    let decays = |index| decaying.iter().any(|range| range.contains(&index));
    let expected = (0..count).map(|at| if decays(at) { decayed[at] } else { still[at] });
    let expected = Tensor::from_iter(expected, &Device::Cpu).unwrap();
    assert_close(&parameters, &expected, 1e-12);
    assert_close(&narrow[0], &expected, 1e-6);
}

#[test]
fn buffers_are_summed_scaled_and_added() {
    let (x, y) = (random("x", 70_001), random("y", 70_001));
    let expected: f64 = numbers(&x).iter().map(|x| x * x).sum();
    assert!((reduce::sum_of_squares(&x).unwrap() / expected - 1.0).abs() < 1e-13);
    assert!((reduce::sum_of_squares(&f32_of(&x)).unwrap() / expected - 1.0).abs() < 1e-7);
    let changed = x.copy().unwrap();
    reduce::scale_in_place(&changed, 0.25).unwrap();
    reduce::add_in_place(&changed, &y).unwrap();
    assert_close(&changed, &((x * 0.25).unwrap() + y).unwrap(), 1e-15);
    reduce::clear(&changed).unwrap();
    assert!(numbers(&changed).iter().all(|value| *value == 0.0));
}
