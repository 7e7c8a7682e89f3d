//! Any bytes as a `.idx` and a `.bin` file: no panic; what is read of them lies within them.
//! Run it from tests/: `cargo +nightly fuzz run --fuzz-dir fuzz indexed`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sft_run::data::indexed::{IndexedFile, with_extension};

// The first two bytes say how many the index has.
fuzz_target!(|bytes: &[u8]| {
    let Some((length, rest)) = bytes.split_first_chunk::<2>() else { return };
    let length = usize::from(u16::from_le_bytes(*length)).min(rest.len());
    let (index, tokens) = rest.split_at(length);
    let name = format!("sft-run-fuzz-indexed-{}", std::process::id());
    let prefix = std::env::temp_dir().join(name);
    std::fs::write(with_extension(&prefix, "idx"), index).expect("a file");
    std::fs::write(with_extension(&prefix, "bin"), tokens).expect("a file");
    let Ok(file) = IndexedFile::open(&prefix) else { return };
    for number in 0..file.sequences().min(1 << 10) {
        let _ = file.sequence(number);
        let _ = file.sequence_mask(number);
    }
    for number in 0..file.documents().min(1 << 10) {
        let _ = file.document(number);
    }
});
