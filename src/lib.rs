#![doc = include_str!("ARCHITECTURE.md")]

pub mod base;
pub mod spec;
pub mod kernels;
pub mod layout;
pub mod data;
pub mod model;
pub mod checkpoint;
pub mod engine;
pub mod metrics;
pub mod stages;
pub mod recipe;
pub mod plan;
pub mod artifacts;
pub mod runner;
pub mod report;
pub mod cli;
