//! Training state on disk.

mod check;
pub mod completed;
pub mod error;
pub mod foreign;
pub mod format;
pub mod manifest;
pub mod native;
pub mod piecewise;
pub mod opened;
pub mod reshard;
pub mod snapshot;
pub mod source;
pub mod whole;
pub mod writer;
