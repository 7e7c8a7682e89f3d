//! Rotary positions.

use super::{assert_close, autograd, f32_of, random};
use candle_core::{Device, Tensor, Var};
use sft_run::kernels::attention::Shape;
use sft_run::kernels::rotary::{self, Rotary, Table};

/// One head `[tokens, head_dim]`, turned by the formula `x·cos + rotate_half(x)·sin`.
fn turned(head: &Tensor, rotary: &Rotary, positions: &[u32]) -> Tensor {
    let half = rotary.rotated / 2;
    let angles: Vec<f64> = positions
        .iter()
        .flat_map(|position| (0..half).map(move |pair| (*position, pair)))
        .map(|(position, pair)| {
            f64::from(position)
                / rotary.interpolation
                / rotary.base.powf(2.0 * pair as f64 / rotary.rotated as f64)
        })
        .collect();
    let angles = Tensor::from_vec(angles, (positions.len(), half), &Device::Cpu).unwrap();
    let (cos, sin) = (angles.cos().unwrap(), angles.sin().unwrap());
    let first = head.narrow(1, 0, half).unwrap();
    let second = head.narrow(1, half, half).unwrap();
    let rest = head.narrow(1, 2 * half, head.dim(1).unwrap() - 2 * half).unwrap();
    let new_first = ((&first * &cos).unwrap() - (&second * &sin).unwrap()).unwrap();
    let new_second = ((&second * &cos).unwrap() + (&first * &sin).unwrap()).unwrap();
    Tensor::cat(&[new_first, new_second, rest], 1).unwrap()
}

fn check(shape: Shape, rotary: &Rotary) {
    let positions: Vec<u32> = (0..30).chain(0..11).collect();
    let qkv = Var::from_tensor(&random("qkv", (positions.len(), shape.qkv_width()))).unwrap();
    let per_group = shape.heads / shape.groups;
    let heads: Vec<_> = (0..shape.heads + 2 * shape.groups)
        .map(|head| {
            let values = qkv.narrow(1, head * shape.head_dim, shape.head_dim).unwrap();
            let is_value = head % (per_group + 2) == per_group + 1;
            if is_value { values } else { turned(&values, rotary, &positions) }
        })
        .collect();
    let expected = Tensor::cat(&heads, 1).unwrap();
    let table = Table::new(30, rotary).unwrap();
    let changed = qkv.copy().unwrap();
    rotary::forward(&changed, &shape, &table, &positions).unwrap();
    assert_close(&changed, &expected, 1e-14);
    let narrow = f32_of(&qkv);
    rotary::forward(&narrow, &shape, &table, &positions).unwrap();
    assert_close(&narrow, &expected, 1e-6);
    let dy = random("dy", qkv.shape());
    let back = dy.copy().unwrap();
    rotary::backward(&back, &shape, &table, &positions).unwrap();
    assert_close(&back, &autograd(&expected, &dy, &qkv), 1e-14);
}

#[test]
fn rotation_agrees_with_the_formula_and_autograd() {
    let shape = Shape { heads: 4, groups: 2, head_dim: 12, scale: 1.0 };
    check(shape, &Rotary { rotated: 12, base: 10_000.0, interpolation: 1.0 });
    check(shape, &Rotary { rotated: 6, base: 10_000.0, interpolation: 4.0 });
    let shape = Shape { heads: 3, groups: 3, head_dim: 10, scale: 1.0 };
    check(shape, &Rotary { rotated: 10, base: 500.0, interpolation: 1.0 });
}

#[test]
fn positions_beyond_the_table_are_refused() {
    let shape = Shape { heads: 1, groups: 1, head_dim: 4, scale: 1.0 };
    let rotary = Rotary { rotated: 4, base: 1e4, interpolation: 1.0 };
    let table = Table::new(2, &rotary).unwrap();
    let error = rotary::forward(&random("qkv", (1, 12)), &shape, &table, &[2]).unwrap_err();
    assert!(error.to_string().contains("position 2 is beyond the rotary table"), "{error}");
}
