//! The same bits from one thread and from many, and on processors with other caches.

use super::{f32_of, numbers, random};
use candle_core::Tensor;
use sft_run::kernels::activation::{self, Kind};
use sft_run::kernels::attention::{self, Shape};
use sft_run::kernels::embedding::{self, Lookup};
use sft_run::kernels::norm::{self, Gradients, Norm};
use sft_run::kernels::{cross_entropy, linear, reduce};

/// A layer's worth of operations and everything that they give.
fn results() -> Vec<Vec<f64>> {
    let single = |name: &str, shape: (usize, usize)| f32_of(&random(name, shape));
    let (tokens, hidden) = (700, 48);
    let shape = Shape { heads: 4, groups: 2, head_dim: 12, scale: 0.3 };
    let starts = [0, 10, 310, 340, 700];
    let x = single("x", (tokens, hidden));
    let weight = f32_of(&random("weight", hidden));
    let (kind, output) = (norm::Kind::RmsNorm, candle_core::DType::F32);
    let norm = Norm { kind, epsilon: 1e-5, weight: &weight, bias: None, output };
    let (normed, saved_norm) = norm::forward(&x, &norm).unwrap();
    let qkv_weight = single("qkv", (shape.qkv_width(), hidden));
    let qkv = linear::forward(&normed, &qkv_weight, None).unwrap();
    let (y, saved) = attention::forward(&qkv, &starts, &shape, None).unwrap();
    let active = activation::forward(Kind::GeluTanh, &y, None).unwrap();
    let logits = linear::forward(&active, &single("head", (500, hidden)), None).unwrap();
    let labels: Vec<u32> = (0..tokens as u32).map(|at| at * 13 % 499).collect();
    let loss = cross_entropy::forward_backward(&logits, &labels, 499, 1.0).unwrap();

    let dqkv = attention::backward(&saved, &starts, &shape, None, &active).unwrap();
    let dnormed = linear::backward_input(&dqkv, &qkv_weight).unwrap();
    let empty = |dims: &[usize]| Tensor::zeros(dims, candle_core::DType::F32, x.device()).unwrap();
    let (dw, db) = (empty(&[shape.qkv_width(), hidden]), empty(&[shape.qkv_width()]));
    linear::backward_weight(&dqkv, &normed, &dw, linear::Onto::Sum).unwrap();
    linear::backward_bias(&dqkv, &db).unwrap();
    let d_norm = empty(&[hidden]);
    let gradients = Gradients { weight: &d_norm, bias: None, input_bias: None };
    let dx = norm::backward(&saved_norm, &norm, &gradients, &dnormed, None).unwrap();
    let table = empty(&[500, hidden]);
    embedding::backward(&Lookup { table: &table, first: 0, ids: &labels }, &dx).unwrap();
    let squares = reduce::sum_of_squares(&table).unwrap();
    let tensors = [y, logits, dqkv, dw, db, d_norm, dx, table];
    tensors.iter().map(numbers).chain([vec![loss, squares]]).collect()
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let with = |threads: usize| {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(results)
    };
    let one = with(1);
    for threads in [1, 2, 3, 8] {
        assert!(with(threads) == one, "{threads} threads");
    }
}

/// The library of products cuts longer sums where the processor's first-level cache is full.
#[test]
fn long_sums_are_added_512_terms_at_a_time() {
    let (tokens, inputs, outputs) = (1300, 70, 80);
    let [x, dy] = [("x", inputs), ("dy", outputs)]
        .map(|(name, width)| f32_of(&random(name, (tokens, width))));
    let sum = |pieces: &[(usize, usize)]| {
        let dw = Tensor::zeros((outputs, inputs), candle_core::DType::F32, x.device()).unwrap();
        for &(first, count) in pieces {
            let rows = |of: &Tensor| of.narrow(0, first, count).unwrap();
            linear::backward_weight(&rows(&dy), &rows(&x), &dw, linear::Onto::Sum).unwrap();
        }
        numbers(&dw)
    };
    assert!(sum(&[(0, tokens)]) == sum(&[(0, 512), (512, 512), (1024, tokens - 1024)]));
    assert!(sum(&[(0, tokens)]) != sum(&[(0, 434), (434, 434), (868, tokens - 868)]));
}
