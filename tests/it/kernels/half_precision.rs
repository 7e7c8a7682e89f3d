//! Half precision on the CPU: every kernel computes what it computes in f32 from the same numbers, and
//! rounds once.

use super::{f32_of, numbers, random};
use candle_core::{DType, Device, Tensor};
use sft_run::base::seed::Stream;
use sft_run::kernels::attention::{self, Cache, Continued, Shape};
use sft_run::kernels::dropout::{self, Dropout};
use sft_run::kernels::embedding::{self, Lookup};
use sft_run::kernels::masters::{self, Masters};
use sft_run::kernels::norm::{Gradients, Kind, Norm};
use sft_run::kernels::optimizer::{self, AdamW, Buffers};
use sft_run::kernels::rotary::{self, Rotary, Table};
use sft_run::kernels::{activation, cross_entropy, linear, norm, reduce, residual};

const HALVES: [DType; 2] = [DType::BF16, DType::F16];

/// The same numbers in half precision and in f32.
fn pair(name: &str, dims: &[usize], half: DType) -> [Tensor; 2] {
    let rounded = random(name, dims).to_dtype(half).unwrap();
    [rounded.clone(), f32_of(&rounded)]
}

/// `half` is `wide`, rounded.
#[track_caller]
fn assert_rounded(half: &Tensor, wide: &Tensor) {
    assert_eq!(numbers(half), numbers(&wide.to_dtype(half.dtype()).unwrap()));
}

/// Runs `work` on the half-precision tensors and on the f32 ones; every result of the first is the
/// second's, rounded, and of the format that `formats` names.
#[expect(clippy::needless_pass_by_value, reason = "as it is called")]
#[track_caller]
fn check<const N: usize, const M: usize>(
    inputs: [[Tensor; 2]; N],
    formats: [DType; M],
    work: impl Fn([&Tensor; N]) -> [Tensor; M],
) {
    let half = work(std::array::from_fn(|at| &inputs[at][0]));
    let wide = work(std::array::from_fn(|at| &inputs[at][1]));
    for ((half, wide), format) in half.iter().zip(&wide).zip(formats) {
        assert_eq!(half.dtype(), format);
        assert_rounded(half, wide);
    }
}

/// A buffer of f32 gradients that is not empty.
fn gradient(dims: &[usize]) -> Tensor {
    f32_of(&random("gradient", dims))
}

#[test]
fn linear_layers() {
    for half in HALVES {
        let inputs = [
            pair("x", &[37, 12], half),
            pair("w", &[20, 12], half),
            pair("b", &[20], half),
            pair("dy", &[37, 20], half),
        ];
        check(inputs, [half, half, DType::F32, DType::F32], |[x, w, b, dy]| {
            let (dw, db) = (gradient(&[20, 12]), gradient(&[20]));
            linear::backward_weight(dy, x, &dw, linear::Onto::Sum).unwrap();
            linear::backward_bias(dy, &db).unwrap();
            let y = linear::forward(x, w, Some(b)).unwrap();
            [y, linear::backward_input(dy, w).unwrap(), dw, db]
        });
    }
}

#[test]
fn norms_and_what_autocast_makes_of_them() {
    for half in HALVES {
        let inputs = [
            pair("x", &[33, 16], half),
            pair("w", &[16], half),
            pair("b", &[16], half),
            pair("dy", &[33, 16], half),
        ];
        let norms = |[x, w, b, dy]: [&Tensor; 4], output| {
            let (kind, epsilon) = (Kind::LayerNorm, 1e-5);
            let norm = Norm { kind, epsilon, weight: w, bias: Some(b), output };
            let (y, saved) = norm::forward(x, &norm).unwrap();
            let (dw, db) = (gradient(&[16]), gradient(&[16]));
            let gradients = Gradients { weight: &dw, bias: Some(&db), input_bias: None };
            let dx = norm::backward(&saved, &norm, &gradients, dy, Some(x)).unwrap();
            [y, dx, dw, db]
        };
        let formats = [half, half, DType::F32, DType::F32];
        check(inputs.clone(), formats, |inputs| norms(inputs, inputs[0].dtype()));
        // fp32 in, half precision out.
        let [x, w, b, [dy, _]] = inputs;
        let [y, dx, ..] = norms([&x[1], &w[1], &b[1], &dy], half);
        let [wide, wide_dx, ..] = norms([&x[1], &w[1], &b[1], &f32_of(&dy)], DType::F32);
        assert_rounded(&y, &wide);
        assert_eq!((dx.dtype(), numbers(&dx)), (DType::F32, numbers(&wide_dx)));
    }
}

#[test]
fn activations_residuals_and_dropout() {
    let addresses: Vec<u64> = (100..119).collect();
    let stream = Stream::new(1, "dropout");
    let dropout = Dropout { rate: 0.3, stream, step: 2, addresses: &addresses, channels: None };
    for half in HALVES {
        let inputs = [
            pair("x", &[19, 24], half),
            pair("b", &[24], half),
            pair("r", &[19, 24], half),
            pair("dy", &[19, 12], half),
        ];
        check(inputs, [half; 5], |[x, b, r, dy]| {
            let kind = activation::Kind::Swiglu;
            [
                activation::forward(kind, x, Some(b)).unwrap(),
                activation::backward(kind, x, Some(b), dy).unwrap(),
                residual::forward(x, Some(b), Some(&dropout), r).unwrap(),
                residual::sum(x, r).unwrap(),
                dropout::apply(x, &dropout).unwrap(),
            ]
        });
        // A half-precision update to an fp32 stream.
        let [[x, wide], [_, r]] = [pair("x", &[19, 24], half), pair("r", &[19, 24], half)];
        let sum = residual::forward(&x, None, None, &r).unwrap();
        assert_eq!(numbers(&sum), numbers(&residual::forward(&wide, None, None, &r).unwrap()));
    }
}

#[test]
fn attention_and_rotary_positions() {
    let shape = Shape { heads: 4, groups: 2, head_dim: 6, scale: 0.4 };
    let (starts, width) = ([0, 3, 20], shape.qkv_width());
    let positions: Vec<u32> = (0..3).chain(0..17).collect();
    let table = Table::new(20, &Rotary { rotated: 4, base: 1e4, interpolation: 1.0 }).unwrap();
    for half in HALVES {
        let inputs = [pair("qkv", &[20, width], half)];
        check(inputs, [half], |[qkv]| {
            let qkv = qkv.copy().unwrap();
            rotary::forward(&qkv, &shape, &table, &positions).unwrap();
            [qkv]
        });
        let inputs = [pair("qkv", &[20, width], half)];
        check(inputs, [half, half], |[qkv]| {
            let cache = Cache::new(2, &shape, (qkv.dtype(), qkv.device())).unwrap();
            let lengths = [0, 0];
            let continued = Continued::new(&starts, &[&[1], &[0]], &lengths).unwrap();
            let (y, _) = attention::forward(qkv, &starts, &shape, None).unwrap();
            [y, attention::cached(qkv, &cache, &continued, &shape).unwrap()]
        });
        // The backward reads the rounded output: compared to within that rounding.
        let [[qkv, wide_qkv], [dy, wide_dy]] =
            [pair("qkv", &[20, width], half), pair("dy", &[20, shape.output_width()], half)];
        let backward = |qkv: &Tensor, dy: &Tensor| {
            let (_, saved) = attention::forward(qkv, &starts, &shape, None).unwrap();
            attention::backward(&saved, &starts, &shape, None, dy).unwrap()
        };
        super::assert_close(&backward(&qkv, &dy), &backward(&wide_qkv, &wide_dy), 1e-2);
        assert_eq!(backward(&qkv, &dy).dtype(), half);
    }
}

#[test]
fn embeddings_and_the_loss() {
    let ids = [3_u32, 0, 3, 4, 2];
    for half in HALVES {
        let inputs = [pair("t", &[5, 9], half), pair("dy", &[5, 9], half)];
        check(inputs, [half, DType::F32], |[table, dy]| {
            let table_gradient = gradient(&[5, 9]);
            let lookup = Lookup { table: &table_gradient, first: 0, ids: &ids };
            embedding::backward(&lookup, dy).unwrap();
            let y = embedding::forward(&Lookup { table, first: 0, ids: &ids }, None).unwrap();
            [y, table_gradient]
        });
        check([pair("logits", &[5, 9], half)], [half, DType::F64], |[logits]| {
            let logits = logits.copy().unwrap();
            let loss = cross_entropy::forward_backward(&logits, &ids, 8, 16.0).unwrap();
            [logits.clone(), Tensor::new(loss, logits.device()).unwrap()]
        });
    }
}

/// Beside half precision a step changes fp32 values to the bit as it does in fp32 alone, and rounds
/// them to the parameters; ties among them too.
#[test]
fn the_optimizer_steps_in_fp32_and_writes_the_rounded_parameters() {
    for half in HALVES {
        let mut start: Vec<f32> = f32_of(&random("p", 50_000)).to_vec1().unwrap();
        for value in start.iter_mut().step_by(3) {
            *value = f32::from_bits(value.to_bits() & 0xffff_0000 | 0x8000);
        }
        let start = Tensor::new(start, &Device::Cpu).unwrap();
        // Views into the middle of larger buffers, as the model's parameters are.
        let middle = |buffer: &Tensor| buffer.narrow(0, 5_000, 40_000).unwrap();
        let all = masters::rounded(&start, half).unwrap();
        let beside = Masters::of(&start.copy().unwrap(), half, &Device::Cpu).unwrap();
        let (parameters, narrow) = (middle(&all), beside.narrow(5_000, 40_000).unwrap());
        let alone = middle(&start).copy().unwrap();
        let bits = |values: &Tensor| -> Vec<u32> {
            values.to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
        };
        assert!(bits(&narrow.values(&parameters).unwrap()) == bits(&alone), "{half:?}");
        let moments = [(); 2].map(|()| [(); 2].map(|()| alone.zeros_like().unwrap()));
        for step in 1..=3 {
            let settings = AdamW {
                learning_rate: 1e-4,
                betas: [0.9, 0.95],
                epsilon: 1e-8,
                weight_decay: 0.1,
                step,
                gradient_scale: 0.5,
            };
            let gradients = f32_of(&random(&format!("g{step}"), 40_000));
            let ways = [(&parameters, &narrow), (&alone, &Masters::Nothing)];
            for ((parameters, masters), moments) in ways.into_iter().zip(&moments) {
                let buffers = Buffers {
                    parameters,
                    masters,
                    gradients: &gradients,
                    first_moment: &moments[0],
                    second_moment: &moments[1],
                    decaying: &[3..17_000, 20_000..40_000],
                };
                optimizer::step(&buffers, &settings).unwrap();
            }
            assert!(bits(&narrow.values(&parameters).unwrap()) == bits(&alone), "{half:?}");
            let rounded = masters::rounded(&alone, half).unwrap();
            assert!(numbers(&parameters) == numbers(&rounded), "{half:?}");
            for at in [0, 1] {
                assert!(bits(&moments[0][at]) == bits(&moments[1][at]), "{half:?}");
            }
        }
        assert!(bits(&alone) != bits(&middle(&start)));
        let before = masters::rounded(&start, half).unwrap();
        for (from, count) in [(0, 5_000), (45_000, 5_000)] {
            let untouched =
                [&all, &before].map(|all| numbers(&all.narrow(0, from, count).unwrap()));
            assert!(untouched[0] == untouched[1], "{half:?}");
        }
    }
}

#[test]
fn buffers() {
    for half in HALVES {
        let inputs = [pair("x", &[40_000], half), pair("y", &[40_000], half)];
        check(inputs, [half, half, DType::F64], |[x, y]| {
            let [sum, scaled] = [x.copy().unwrap(), x.copy().unwrap()];
            reduce::add_in_place(&sum, y).unwrap();
            reduce::scale_in_place(&scaled, 0.3).unwrap();
            let squares = reduce::sum_of_squares(x).unwrap();
            [sum, scaled, Tensor::new(squares, x.device()).unwrap()]
        });
    }
}
