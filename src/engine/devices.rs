//! The devices that ranks compute on.

use crate::kernels::device;
use crate::spec::backend::Backend;
use candle_core::{Device, Result};

/// The device of the rank with number `rank` among those of this process.
///
/// # Errors
/// When there is no such device, or this build has no code for it.
pub fn of_rank(backend: Backend, rank: usize) -> Result<Device> {
    match backend {
        Backend::Cpu => Ok(Device::Cpu),
        Backend::Cuda => device::gpu(rank),
    }
}
