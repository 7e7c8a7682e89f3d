//! The GPT, written once for any layout.

pub mod weights;
