//! Small tools that every room may use: atomic files, content hashes, errors as text, the spelling of Python and of shells,
//! named random streams, the known word that an unknown one is most like.

pub mod atomic_file;
pub mod bits;
pub mod canonical_json;
pub mod chat_markup;
pub mod digest;
pub mod error_chain;
pub mod file_pattern;
pub mod mapped_file;
pub mod numbers;
pub mod python_text;
pub mod seed;
pub mod shell_words;
pub mod step_trace;
pub mod suggest;
pub mod template_size;
