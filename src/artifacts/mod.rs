//! The store of stage outputs and the lock file.
