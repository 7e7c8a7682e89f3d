//! Decoding and metrics against recorded cases.

mod batch;
mod metrics;
mod sampling;
