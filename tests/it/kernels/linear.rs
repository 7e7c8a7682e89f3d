//! Linear layers.

use super::{assert_close, autograd, f32_of, random, started, var};
use sft_run::kernels::linear;

fn check(tokens: usize, inputs: usize, outputs: usize) {
    let (x, weight) = (var("x", (tokens, inputs)), var("w", (outputs, inputs)));
    let (bias, dy) = (var("b", outputs), random("dy", (tokens, outputs)));
    let expected = x.matmul(&weight.t().unwrap()).unwrap().broadcast_add(&bias).unwrap();

    let y = linear::forward(&x, &weight, Some(&bias)).unwrap();
    assert_close(&y, &expected, 1e-12);
    let without = linear::forward(&x, &weight, None).unwrap();
    assert_close(&without.broadcast_add(&bias).unwrap(), &expected, 1e-12);

    let dx = linear::backward_input(&dy, &weight).unwrap();
    assert_close(&dx, &autograd(&expected, &dy, &x), 1e-12);
    let (dw, start) = started("dw", (outputs, inputs));
    linear::backward_weight(&dy, &x, &dw, linear::Onto::Sum).unwrap();
    assert_close(&dw, &(autograd(&expected, &dy, &weight) + start).unwrap(), 1e-12);
    linear::backward_weight(&dy, &x, &dw, linear::Onto::Nothing).unwrap();
    assert_close(&dw, &autograd(&expected, &dy, &weight), 1e-12);
    let (db, start) = started("db", outputs);
    linear::backward_bias(&dy, &db).unwrap();
    assert_close(&db, &(autograd(&expected, &dy, &bias) + start).unwrap(), 1e-12);

    let in_f32 = linear::forward(&f32_of(&x), &f32_of(&weight), Some(&f32_of(&bias))).unwrap();
    assert_close(&in_f32, &expected, 1e-6);
    assert_close(&linear::backward_input(&f32_of(&dy), &f32_of(&weight)).unwrap(), &dx, 1e-6);
}

#[test]
fn linear_agrees_with_autograd() {
    for (tokens, inputs, outputs) in
        [(1, 1, 1), (7, 5, 3), (130, 17, 65), (257, 96, 288), (300, 130, 33)]
    {
        check(tokens, inputs, outputs);
    }
}

#[test]
fn no_tokens_give_no_rows_and_no_gradient() {
    let (x, weight) = (super::zeros((0, 4)), random("w", (3, 4)));
    assert_eq!(linear::forward(&x, &weight, None).unwrap().dims(), [0, 3]);
    let (dw, start) = started("dw", (3, 4));
    linear::backward_weight(&super::zeros((0, 3)), &x, &dw, linear::Onto::Sum).unwrap();
    assert_close(&dw, &start, 0.0);
    linear::backward_weight(&super::zeros((0, 3)), &x, &dw, linear::Onto::Nothing).unwrap();
    assert_close(&dw, &super::zeros((3, 4)), 0.0);
}

#[test]
fn gradients_go_into_views_of_one_buffer() {
    let flat = super::zeros(20);
    let view = flat.narrow(0, 5, 12).unwrap().reshape((3, 4)).unwrap();
    let (dy, x) = (random("dy", (9, 3)), random("x", (9, 4)));
    linear::backward_weight(&dy, &x, &view, linear::Onto::Sum).unwrap();
    assert_close(&view, &dy.t().unwrap().matmul(&x).unwrap(), 1e-12);
    let outside = [flat.narrow(0, 0, 5).unwrap(), flat.narrow(0, 17, 3).unwrap()];
    assert!(outside.iter().all(|part| super::numbers(part).iter().all(|value| *value == 0.0)));
}

#[test]
fn wrong_shapes_are_refused() {
    let error = linear::forward(&random("x", (2, 3)), &random("w", (4, 5)), None).unwrap_err();
    assert!(error.to_string().contains("weight has shape [4, 5], expected [4, 3]"), "{error}");
}
