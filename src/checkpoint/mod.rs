//! Training state on disk.
