//! Every operation's forward and backward, in f64 against candle's autograd over its plain operations.

use candle_core::{DType, Device, Shape, Tensor, Var};
use sft_run::base::seed::Stream;

mod activation;
mod attention;
mod cross_entropy;
mod dropout;
mod embedding;
mod half_precision;
mod linear;
mod norm;
mod optimizer;
mod rotary;
mod threads;

/// Standard normal numbers in f64; each name gives others.
fn random(name: &str, shape: impl Into<Shape>) -> Tensor {
    let shape = shape.into();
    let stream = Stream::new(3, name);
    let values: Vec<f64> = (0..shape.elem_count() as u64).map(|at| stream.normal(at)).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

fn zeros(shape: impl Into<Shape>) -> Tensor {
    Tensor::zeros(shape, DType::F64, &Device::Cpu).unwrap()
}

fn var(name: &str, shape: impl Into<Shape>) -> Var {
    Var::from_tensor(&random(name, shape)).unwrap()
}

fn f32_of(tensor: &Tensor) -> Tensor {
    tensor.to_dtype(DType::F32).unwrap()
}

fn numbers(tensor: &Tensor) -> Vec<f64> {
    tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// Largest difference, relative to the largest number expected.
#[track_caller]
fn assert_close(actual: &Tensor, expected: &Tensor, tolerance: f64) {
    assert_eq!(actual.dims(), expected.dims());
    let (actual, expected) = (numbers(actual), numbers(expected));
    let largest = expected.iter().fold(1e-30_f64, |largest, value| largest.max(value.abs()));
    for (at, (actual, expected)) in actual.iter().zip(&expected).enumerate() {
        let error = (actual - expected).abs() / largest;
        assert!(error <= tolerance, "at {at}: {actual} instead of {expected} ({error:.1e})");
    }
}

/// The gradient that candle's autograd gives `var` when the gradient of `out` is `dy`.
fn autograd(out: &Tensor, dy: &Tensor, var: &Var) -> Tensor {
    let loss = (out * dy).unwrap().sum_all().unwrap();
    loss.backward().unwrap().get(var).expect("a gradient").clone()
}

/// Gradients are added, not put: starts a buffer with numbers that must still be in the result.
fn started(name: &str, shape: impl Into<Shape>) -> (Tensor, Tensor) {
    let start = random(name, shape);
    (start.copy().unwrap(), start)
}
