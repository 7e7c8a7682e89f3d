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

/// NCCL's version by its own word, such as `2.28.9`; none where it is not there, and in a build without
/// GPUs.
pub fn nccl_version() -> Option<String> {
    #[cfg(feature = "cuda")]
    return nccl::version().and_then(crate::kernels::device::dotted);
    #[cfg(not(feature = "cuda"))]
    None
}
