//! The same run again, held against its lock.
