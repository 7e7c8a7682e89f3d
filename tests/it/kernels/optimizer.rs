//! AdamW and whole-buffer operations.

use super::{assert_close, f32_of, numbers, random, zeros};
use candle_core::{Tensor, Var};
use candle_nn::optim::{AdamW as CandleAdamW, Optimizer, ParamsAdamW};
use sft_run::kernels::optimizer::{self, AdamW, Buffers};
use sft_run::kernels::reduce;

#[test]
fn adamw_takes_the_steps_that_candle_takes() {
    let count = 20_001;
    let expected = Var::from_tensor(&random("p", count)).unwrap();
    let settings = ParamsAdamW { lr: 1e-2, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1 };
    let mut oracle = CandleAdamW::new(vec![expected.clone()], settings).unwrap();
    let (parameters, first, second) = (random("p", count), zeros(count), zeros(count));
    let narrow = [f32_of(&parameters), f32_of(&first), f32_of(&second)];
    for step in 1..=5 {
        let gradients = random(&format!("g{step}"), count);
        let loss = (expected.as_tensor() * (&gradients * 0.5).unwrap()).unwrap().sum_all().unwrap();
        oracle.step(&loss.backward().unwrap()).unwrap();
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
            let buffers =
                Buffers { parameters, gradients, first_moment, second_moment, copy: None };
            optimizer::step(&buffers, &settings).unwrap();
        };
        take(&parameters, &gradients, &first, &second);
        take(&narrow[0], &f32_of(&gradients), &narrow[1], &narrow[2]);
    }
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
