//! Pages and files for people and tools, made from events and metrics.

pub mod record;
pub mod samples;
pub mod summary;

pub use record::{Error, RunRecord};
pub use summary::Summary;
