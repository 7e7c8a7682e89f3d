//! Rows to micro-batches: tokenizers, shards, packing, samplers.
//!
//! On the way in: [`rows`], [`template`] and [`samples`] make texts of a file's rows, a
//! [`tokenizer`] makes ids of them ([`template::chat`] for conversations), [`indexed`] stores them, [`packing`] puts several into one
//! training sequence. On the way out: [`sequences`] and [`stream`] read sequences back, [`sampler`]
//! says which come next, [`feed`] assembles a [`microbatch`]. [`choices`] reads rows of multiple
//! choice, which are judged and not learned from.

pub mod choices;
mod conversation;
pub mod feed;
pub mod indexed;
pub mod microbatch;
pub mod nemo_template;
pub mod packing;
pub mod rows;
pub mod sampler;
pub mod samples;
pub mod sequences;
pub mod stream;
pub mod template;
pub mod tokenizer;
