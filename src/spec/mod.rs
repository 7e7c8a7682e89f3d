//! The nouns of the program as plain data; the JSON Schemas are generated from here.

pub mod architecture;
pub mod backend;
pub mod choices;
pub mod event;
pub mod fault;
pub mod generation;
pub mod job;
pub mod metric;
pub mod optimization;
pub mod reading;
pub mod recipe;
pub mod rows;
pub mod watched;
