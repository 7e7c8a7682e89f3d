//! The way in for whoever asks what this build can compute on.

use crate::kernels::device;
use crate::parallel;
use crate::spec::backend::Backend;
use crate::spec::job::ReadingTrainer;
use crate::spec::optimization::{Degrees, Precision};

/// What a model that is read from is spread over.
#[derive(Clone, Copy, Debug)]
pub struct Devices {
    /// Ranks along each axis, and the number format.
    pub trainer: ReadingTrainer,
    /// What the ranks compute on.
    pub backend: Backend,
}

impl Devices {
    /// One rank on the CPU, in fp32.
    pub const CPU: Devices = Devices {
        trainer: ReadingTrainer { degrees: Degrees::SINGLE, precision: Precision::Fp32 },
        backend: Backend::Cpu,
    };
}

/// Whether this build has code for GPUs.
pub fn built_for_gpus() -> bool {
    device::BUILT_FOR_GPUS
}

/// The versions of NVIDIA's libraries by their own word, such as `2.28.9`; nothing of those that are
/// not there, and in a build without GPUs.
pub fn library_versions() -> Vec<(&'static str, String)> {
    let nccl = parallel::nccl_version().map(|version| ("NCCL", version));
    device::library_versions().into_iter().chain(nccl).collect()
}

/// GPUs that this build can use on this machine.
pub fn usable_gpus() -> usize {
    device::count()
}
