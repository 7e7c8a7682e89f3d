//! Tokenizers, templates, shards, packing, sampling.

// Ids and texts of the original tokenizers; training one's own.
mod tokenizers;

use std::path::PathBuf;

/// A file of this subject's fixtures.
fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/data").join(name)
}
