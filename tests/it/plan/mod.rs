//! The plan: fingerprints, order, reasons, the cache and the lock, walked with stand-ins for stages.

mod estimates;
mod fingerprints;
mod fixture;
mod graphs;
mod honoured;
mod locks;
mod processes;
mod projection;
mod reasons;
mod walks;
