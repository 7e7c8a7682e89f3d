//! The GPT, written once for any layout.
