//! Activations.

use super::{assert_close, autograd, f32_of, random, var};
use candle_core::{D, Device, Tensor};
use sft_run::kernels::activation::{self, Kind};

const KINDS: [Kind; 7] = [
    Kind::GeluTanh,
    Kind::GeluErf,
    Kind::Relu,
    Kind::SquaredRelu,
    Kind::Geglu,
    Kind::Swiglu,
    Kind::Reglu,
];

fn oracle(kind: Kind, x: &Tensor) -> Tensor {
    let halves = || x.chunk(2, D::Minus1).unwrap();
    let gated = |gate: Tensor| (gate * &halves()[1]).unwrap();
    match kind {
        Kind::GeluTanh => x.gelu().unwrap(),
        Kind::GeluErf => x.gelu_erf().unwrap(),
        Kind::Relu => x.relu().unwrap(),
        Kind::SquaredRelu => x.relu().unwrap().sqr().unwrap(),
        Kind::Geglu => gated(halves()[0].gelu().unwrap()),
        Kind::Swiglu => gated(halves()[0].silu().unwrap()),
        Kind::Reglu => gated(halves()[0].relu().unwrap()),
    }
}

fn check(kind: Kind, tokens: usize, width: usize) {
    let (x, bias) = (var("x", (tokens, width)), random("b", width));
    let biased = x.broadcast_add(&bias).unwrap();
    let expected = oracle(kind, &biased);
    let dy = random("dy", expected.shape());
    assert_close(&activation::forward(kind, &x, Some(&bias)).unwrap(), &expected, 1e-7);
    assert_close(&activation::forward(kind, &biased, None).unwrap(), &expected, 1e-7);
    let dx = activation::backward(kind, &x, Some(&bias), &dy).unwrap();
    // candle's derivative of gelu has constants of six digits; see the test by differences below.
    assert_close(&dx, &autograd(&expected, &dy, &x), 1e-6);

    let y = activation::forward(kind, &f32_of(&x), Some(&f32_of(&bias))).unwrap();
    assert_close(&y, &expected, 1e-6);
    let narrow =
        activation::backward(kind, &f32_of(&x), Some(&f32_of(&bias)), &f32_of(&dy)).unwrap();
    assert_close(&narrow, &dx, 2e-6);
}

#[test]
fn activations_agree_with_autograd() {
    for kind in KINDS {
        for (tokens, width) in [(1, 2), (5, 14), (90, 384)] {
            check(kind, tokens, width);
        }
    }
}

/// Derivatives by central differences in f64, where the oracle's constants do not matter.
#[test]
fn derivatives_agree_with_differences() {
    let (x, step) = (random("x", (11, 6)), 1e-5);
    for kind in KINDS {
        let value = |x: Tensor| activation::forward(kind, &x, None).unwrap();
        let dy = random("dy", value(x.clone()).shape());
        let dx = activation::backward(kind, &x, None, &dy).unwrap();
        let direction = random("direction", x.shape());
        let ahead = value((&x + (&direction * step).unwrap()).unwrap());
        let behind = value((&x - (&direction * step).unwrap()).unwrap());
        let difference = (((ahead - behind).unwrap() / (2.0 * step)).unwrap() * &dy).unwrap();
        let analytic = (dx * &direction).unwrap().sum_all().unwrap();
        assert_close(&analytic, &difference.sum_all().unwrap(), 1e-7);
    }
}

/// f32 stays within a few units of the last place over the whole range, tails included.
#[test]
fn f32_is_accurate_relative_to_each_value() {
    let points: Vec<f64> = (0..40_001).map(|at| f64::from(at - 20_000) / 2000.0).collect();
    let rounded: Vec<f64> = points.iter().map(|x| f64::from(*x as f32)).collect();
    let x = Tensor::from_vec(rounded.clone(), (1, points.len()), &Device::Cpu).unwrap();
    for (kind, tolerance) in [(Kind::GeluTanh, 1e-5), (Kind::GeluErf, 1e-5)] {
        let exact = super::numbers(&activation::forward(kind, &x, None).unwrap());
        let single = super::numbers(&activation::forward(kind, &f32_of(&x), None).unwrap());
        for ((x, exact), single) in rounded.iter().zip(&exact).zip(&single) {
            let error = (single - exact).abs();
            assert!(
                error <= tolerance * exact.abs() + 1e-30,
                "{kind:?}({x}): {single} not {exact}"
            );
            if *x > -1.0 {
                assert!(error <= 4e-7 * exact.abs(), "{kind:?}({x}): {single} not {exact}");
            }
        }
    }
}
