//! Normalizations.

use super::{assert_close, autograd, f32_of, random, started, var};
use candle_core::{D, DType, Tensor};
use sft_run::kernels::norm::{self, Gradients, Kind, Norm};

const EPSILON: f64 = 1e-5;

fn oracle(kind: Kind, x: &Tensor, weight: &Tensor, bias: &Tensor) -> Tensor {
    let mean = x.mean_keepdim(D::Minus1).unwrap();
    let centered = if kind == Kind::RmsNorm { x.clone() } else { x.broadcast_sub(&mean).unwrap() };
    let variance = centered.sqr().unwrap().mean_keepdim(D::Minus1).unwrap();
    let deviation = (variance + EPSILON).unwrap().sqrt().unwrap();
    let weight = if kind == Kind::LayerNorm1p { (weight + 1.0).unwrap() } else { weight.clone() };
    let y = centered.broadcast_div(&deviation).unwrap().broadcast_mul(&weight).unwrap();
    if kind == Kind::RmsNorm { y } else { y.broadcast_add(bias).unwrap() }
}

fn check(kind: Kind, tokens: usize, width: usize) {
    let x = ((random("x", (tokens, width)) * 2.0).unwrap() + 0.7).unwrap();
    let x = candle_core::Var::from_tensor(&x).unwrap();
    let (weight, bias) = (var("w", width), var("b", width));
    let (dy, onward) = (random("dy", (tokens, width)), random("onward", (tokens, width)));
    let expected = oracle(kind, &x, &weight, &bias);
    let has_bias = kind != Kind::RmsNorm;
    let norm = Norm {
        kind,
        epsilon: EPSILON,
        weight: &weight,
        bias: has_bias.then_some(bias.as_tensor()),
        output: DType::F64,
    };

    let (y, saved) = norm::forward(&x, &norm).unwrap();
    assert_close(&y, &expected, 1e-12);
    let ((dw, dw_start), (db, db_start)) = (started("dw", width), started("db", width));
    let gradients = Gradients { weight: &dw, bias: has_bias.then_some(&db), input_bias: None };
    let dx = norm::backward(&saved, &norm, &gradients, &dy, Some(&onward)).unwrap();
    assert_close(&dx, &(autograd(&expected, &dy, &x) + &onward).unwrap(), 1e-10);
    assert_close(&dw, &(autograd(&expected, &dy, &weight) + dw_start).unwrap(), 1e-10);
    if has_bias {
        assert_close(&db, &(autograd(&expected, &dy, &bias) + db_start).unwrap(), 1e-10);
    }
    let (sums, start) = started("sums", width);
    let gradients = Gradients { input_bias: Some(&sums), ..gradients };
    let (dx_again, y_again) =
        norm::backward_with_output(&saved, &norm, &gradients, &dy, Some(&onward)).unwrap();
    assert_close(&dx_again, &dx, 0.0);
    assert_close(&y_again, &y, 0.0);
    assert_close(&sums, &(dx.sum(0).unwrap() + start).unwrap(), 1e-12);

    let (weight, bias) = (f32_of(&weight), f32_of(&bias));
    let norm =
        Norm { weight: &weight, bias: has_bias.then_some(&bias), output: DType::F32, ..norm };
    assert_close(&norm::forward(&f32_of(&x), &norm).unwrap().0, &expected, 1e-6);
}

#[test]
fn norms_agree_with_autograd() {
    for kind in [Kind::LayerNorm, Kind::LayerNorm1p, Kind::RmsNorm] {
        for (tokens, width) in [(1, 1), (3, 7), (2, 16), (200, 96), (600, 33)] {
            check(kind, tokens, width);
        }
    }
}

#[test]
fn the_fused_sum_is_the_sum() {
    let (x, residual) = (random("x", (5, 12)), random("r", (5, 12)));
    let weight = random("w", 12);
    let (kind, output) = (Kind::RmsNorm, DType::F64);
    let norm = Norm { kind, epsilon: EPSILON, weight: &weight, bias: None, output };
    let (y, saved) = norm::add_forward(&x, None, None, &residual, &norm).unwrap();
    let sum = (x + residual).unwrap();
    assert_close(saved.input(), &sum, 0.0);
    assert_close(&y, &norm::forward(&sum, &norm).unwrap().0, 0.0);
}
