//! The way in for whoever asks what this build can compute on.

use crate::kernels::device;

/// Whether this build has code for GPUs.
pub fn built_for_gpus() -> bool {
    device::BUILT_FOR_GPUS
}

/// GPUs that this build can use on this machine.
pub fn usable_gpus() -> usize {
    device::count()
}
