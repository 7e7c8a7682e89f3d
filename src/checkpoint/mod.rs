//! Training state on disk.

pub mod foreign;
pub mod format;
pub mod manifest;
pub mod native;
pub mod whole;
