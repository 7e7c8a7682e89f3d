//! Any bytes as a safetensors file: no panic; what is read of it lies within it.
//! Run it from tests/: `cargo +nightly fuzz run --fuzz-dir fuzz safetensors`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sft_run::checkpoint::foreign::rectangles::Rectangle;
use sft_run::checkpoint::foreign::{safetensors, stored::Piece};

fuzz_target!(|bytes: &[u8]| {
    let Ok(tensors) = safetensors::tensors(&Piece::of_bytes(bytes)) else { return };
    for tensor in tensors.values().filter(|tensor| tensor.numbers() < 1 << 16) {
        let mut into = vec![0.0; tensor.numbers()];
        let _ = tensor.read(&Rectangle::whole(&tensor.shape), &mut into);
    }
});
