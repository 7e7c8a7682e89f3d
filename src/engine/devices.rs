//! The devices that ranks compute on.

use crate::kernels::device;
use crate::spec::backend::Backend;
use candle_core::{DType, Device, Result};

/// [`of_rank`] with what products in `dtype` with a model `width` wide use started, so that the first
/// of them does not wait for it.
///
/// # Errors
/// The same, or that it does not start.
pub fn started(backend: Backend, rank: usize, dtype: DType, width: usize) -> Result<Device> {
    let device = of_rank(backend, rank)?;
    device::start(&device, dtype, width)?;
    Ok(device)
}

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
