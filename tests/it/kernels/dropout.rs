//! Dropout and the residual stream.

use super::{assert_close, numbers, random};
use candle_core::{DType, Device, Tensor};
use sft_run::base::seed::Stream;
use sft_run::kernels::dropout::{self, Channels, Dropout};
use sft_run::kernels::residual;

fn dropout(addresses: &[u64]) -> Dropout<'_> {
    Dropout {
        rate: 0.3,
        stream: Stream::new(1, "dropout/test"),
        step: 4,
        addresses,
        channels: None,
    }
}

#[test]
fn the_share_that_stays_is_scaled_up() {
    let addresses: Vec<u64> = (0..500).collect();
    let ones = Tensor::ones((500, 97), candle_core::DType::F64, &candle_core::Device::Cpu).unwrap();
    let values = numbers(&dropout::apply(&ones, &dropout(&addresses)).unwrap());
    let kept = values.iter().filter(|value| (**value - 1.0 / 0.7).abs() < 1e-12).count();
    let dropped = values.iter().filter(|value| **value == 0.0).count();
    assert_eq!(kept + dropped, values.len());
    assert!((kept as f64 / values.len() as f64 - 0.7).abs() < 0.01);
}

#[test]
fn the_mask_belongs_to_the_token_not_to_the_batch() {
    let addresses: Vec<u64> = (100..120).collect();
    let x = random("x", (20, 13));
    let whole = dropout::apply(&x, &dropout(&addresses)).unwrap();
    let tail = x.narrow(0, 8, 12).unwrap();
    let part = dropout::apply(&tail, &dropout(&addresses[8..])).unwrap();
    assert_close(&part, &whole.narrow(0, 8, 12).unwrap(), 0.0);
    let later = dropout::apply(&x, &Dropout { step: 5, ..dropout(&addresses) }).unwrap();
    assert_ne!(numbers(&later), numbers(&whole));
}

#[test]
fn the_residual_is_added_after_bias_and_dropout() {
    let addresses: Vec<u64> = (7..26).collect();
    let (x, bias, residual) = (random("x", (19, 33)), random("b", 33), random("r", (19, 33)));
    let biased = x.broadcast_add(&bias).unwrap();
    let plain = residual::forward(&x, Some(&bias), None, &residual).unwrap();
    assert_close(&plain, &(&biased + &residual).unwrap(), 1e-15);
    let some = dropout(&addresses);
    let dropped = residual::forward(&x, Some(&bias), Some(&some), &residual).unwrap();
    let expected = (dropout::apply(&biased, &some).unwrap() + &residual).unwrap();
    assert_close(&dropped, &expected, 1e-15);
    assert_close(&residual::sum(&x, &residual).unwrap(), &(x + residual).unwrap(), 0.0);
}

#[test]
fn a_rate_of_one_is_refused() {
    let all = Dropout { rate: 1.0, ..dropout(&[0]) };
    let error = dropout::apply(&random("x", (1, 2)), &all).unwrap_err().to_string();
    assert!(error.contains("dropout rate 1 is not in [0, 1)"), "{error}");
}

/// A part of the channels is dropped as in the whole, wherever the part begins.
#[test]
fn a_part_of_the_channels_is_masked_as_in_the_whole() {
    let addresses = [3, 900];
    let whole = Tensor::ones((2, 22), DType::F64, &Device::Cpu).unwrap();
    let expected = dropout::apply(&whole, &dropout(&addresses)).unwrap();
    for (first, width) in [(0, 11), (11, 11), (5, 6), (4, 8), (21, 1)] {
        let channels = Some(Channels { first, all: 22 });
        let part = whole.narrow(1, first, width).unwrap().contiguous().unwrap();
        let found = dropout::apply(&part, &Dropout { channels, ..dropout(&addresses) }).unwrap();
        let expected = expected.narrow(1, first, width).unwrap();
        assert_eq!(found.to_vec2::<f64>().unwrap(), expected.to_vec2::<f64>().unwrap());
    }
}
