//! Small tools that every room may use: atomic files, content hashes, Python's spelling, named random streams.

pub mod atomic_file;
pub mod canonical_json;
pub mod chat_markup;
pub mod digest;
pub mod file_pattern;
pub mod mapped_file;
pub mod python_text;
pub mod seed;
pub mod step_trace;
pub mod template_size;
