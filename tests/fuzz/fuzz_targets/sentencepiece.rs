//! Any bytes as a SentencePiece `.model` file: no panic, and a text's ids are the vocabulary's.
//! Run it from tests/: `cargo +nightly fuzz run --fuzz-dir fuzz sentencepiece`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sft_run::data::tokenizer::Tokenizer;
use sft_run::spec::job::TokenizerKind;
use std::collections::BTreeMap;

fuzz_target!(|bytes: &[u8]| {
    let name = format!("sft-run-fuzz-{}.model", std::process::id());
    let path = std::env::temp_dir().join(name);
    std::fs::write(&path, bytes).expect("a file");
    let files = BTreeMap::from([("tokenizer.model".to_owned(), path)]);
    let Ok(tokenizer) = Tokenizer::load(TokenizerKind::SentencePiece, &files) else { return };
    for text in ["The capital of France is", "  naïve\t東京\u{1f600}\0"] {
        let ids = tokenizer.encode(text).expect("any text has ids");
        assert!(ids.iter().all(|id| (*id as usize) < tokenizer.vocab_size()));
        let _ = tokenizer.decode(&ids);
    }
});
