//! Ranks that work together: their groups, the collectives of a group, layers split over ranks.
//!
//! A rank is a thread with a device. Everything above talks to other ranks through [`group::Group`]
//! and does not know whether threads of one process stand behind it, several nodes' or NCCL.

pub mod alone;
pub mod group;
pub mod linear;
pub mod mesh;
#[cfg(feature = "cuda")]
mod nccl;
pub mod nodes;
pub mod parameter_view;
pub mod ranks;
pub mod regions;
pub mod threads;
pub mod vocabulary;
