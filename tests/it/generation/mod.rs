//! Decoding and metrics against recorded cases.

mod batch;
mod metrics;
mod report;
mod sampling;
