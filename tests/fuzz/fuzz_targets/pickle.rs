//! Any bytes as a pickle and as a file of torch.save: no panic, nothing executed, bounded memory.
//! Run it from tests/: `cargo +nightly fuzz run --fuzz-dir fuzz pickle`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sft_run::checkpoint::foreign::{pickle, stored::Piece, torch};

fuzz_target!(|bytes: &[u8]| {
    let _ = pickle::parse(bytes);
    let _ = torch::read(&Piece::of_bytes(bytes));
});
