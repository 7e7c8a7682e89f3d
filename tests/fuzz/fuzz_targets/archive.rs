//! Any bytes as a tar archive, and as the settings in one: no panic, no member that leads outside.
//! Run it from tests/: `cargo +nightly fuzz run --fuzz-dir fuzz archive`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sft_run::checkpoint::foreign::{archive, hugging_face::config, nemo, stored::Piece};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(members) = archive::listed(&Piece::of_bytes(bytes)) {
        for name in members.keys() {
            assert!(!name.starts_with('/') && !name.split('/').any(|part| part == ".."));
        }
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = config::read(text);
        if let Ok(settings) = nemo::config::nemo(text) {
            let _ = settings.architecture(&nemo::config::Found::default());
        }
    }
});
