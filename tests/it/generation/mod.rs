//! Decoding and metrics against recorded cases.

mod batch;
mod cached;
mod metrics;
mod report;
mod sampling;
mod small_model;
mod stages;
