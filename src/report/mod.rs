//! Pages and files for people and tools, made from events and metrics.

pub mod curve;
pub mod difference;
pub mod metrics_csv;
pub mod metrics_jsonl;
pub mod numbers;
pub mod html;
pub mod junit;
mod pages;
pub mod record;
pub mod runs;
pub mod samples;
pub mod summary;
pub mod sweep;
pub mod tables;
pub mod tensorboard;

pub use record::{Error, RunRecord};
pub use summary::Summary;
