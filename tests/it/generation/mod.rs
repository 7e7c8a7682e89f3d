//! Decoding and metrics against recorded cases.

mod batch;
mod cached;
mod growing;
mod layouts;
mod chi_squared;
mod choices;
mod metrics;
#[cfg(unix)]
mod programs;
mod report;
mod sampling;
mod small_model;
mod stages;
mod transformers;
