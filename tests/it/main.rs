//! All integration tests; the `mod` lines are the table of contents.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by a panic, in its helpers too"
)]
#![expect(clippy::disallowed_methods, reason = "tests write files as anybody does")]
#![expect(clippy::single_range_in_vec_init, reason = "lists of ranges, some of one")]
#![expect(clippy::float_cmp, reason = "equal bits are what many tests demand")]

// The source tree keeps the rules that src/ARCHITECTURE.md states.
mod architecture;
mod checkpoint;
// YAML scalars, interpolation, overrides and templates against recorded cases.
mod recipe_language;
// Shipped recipes, the bad ones with their rendered errors, the schemas, the status of every key.
mod recipe_check;
// Stages in order, fingerprints, reasons, estimates, the cache and the lock.
mod plan;
// Tokenizers, templates, shards, packing, sampling.
mod data;
// Every operation's forward and backward against candle in f64.
mod kernels;
// Collectives of threads: sums, misuse, failing ranks.
mod parallel;
// The model and the engine against an independent float64 reference; layouts and batch cuts.
mod engine;
// The first training steps against the float64 reference of tests/golden.
mod golden;
// Decoding and metrics against recorded cases.
mod generation;
// The binary from outside: commands, exit codes, reruns, interruption.
mod program;
// Loggers, tables, notifications, provenance.
mod around;
// Many runs of one recipe: samplers, halving, the journal, killed and resumed.
mod sweep;
// The same again beside its lock, and each culprit named.
mod verify;
