//! Training state on disk.

pub mod format;
pub mod manifest;
pub mod native;
pub mod source;
pub mod whole;
