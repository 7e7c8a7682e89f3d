//! Tokenizers, templates, shards, packing, sampling.

#![expect(
    clippy::disallowed_methods,
    reason = "tests write input files in place and read SFT_UPDATE"
)]

// Ids and texts of the original tokenizers; training one's own.
mod tokenizers;
// Token files: round trips, and files that are broken on purpose.
mod indexed;
// Samples of rows: templates, NeMo's rules by hand, masks, splits.
mod samples;
// Chat templates: texts and answers as Transformers renders them.
mod chat;
// Token streams: windows, resets, blends.
mod streams;
// The stages tokenize and shard, and what comes out of them.
mod stages;

use std::path::PathBuf;

/// A file of this subject's fixtures.
fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/data").join(name)
}
