//! Decoding and metrics against recorded cases.

mod metrics;
