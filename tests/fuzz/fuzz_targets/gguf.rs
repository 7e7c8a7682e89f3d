//! Any bytes as a GGUF file, its tensors and its tokenizer: no panic.
//! Run it from tests/: `cargo +nightly fuzz run --fuzz-dir fuzz gguf`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sft_run::checkpoint::foreign::rectangles::Rectangle;
use sft_run::checkpoint::foreign::{gguf, stored::Piece};

fuzz_target!(|bytes: &[u8]| {
    let Ok(file) = gguf::read(&Piece::of_bytes(bytes)) else { return };
    for tensor in file.tensors.values().filter(|tensor| tensor.numbers() < 1 << 16) {
        let mut into = vec![0.0; tensor.numbers()];
        let _ = tensor.read(&Rectangle::whole(&tensor.shape), &mut into);
    }
    let _ = gguf::tokenizer::files(&file.metadata);
});
