//! Where tensors can lie: the CPU, or an NVIDIA GPU in a build with the feature `cuda`.

use super::Result;
#[cfg(feature = "cuda")]
use candle_core::Shape;
use candle_core::{DType, Device, Tensor};

/// GPU `ordinal`, opened with a stream of its own and a pool that keeps freed memory.
///
/// # Errors
/// Where there is no such GPU, or this build has no code for GPUs: the text says what to do.
#[cfg(feature = "cuda")]
pub fn gpu(ordinal: usize) -> Result<Device> {
    super::cuda::open(ordinal)
}

/// GPU `ordinal`: this build has no code for GPUs.
///
/// # Errors
/// Always.
#[cfg(not(feature = "cuda"))]
pub fn gpu(ordinal: usize) -> Result<Device> {
    candle_core::bail!(
        "GPU {ordinal} is asked for, but this build computes on the CPU: build it with `cargo build --release --features cuda`"
    )
}

/// Starts what operations on `device` use, which the first of them would do otherwise: on a GPU the
/// library of matrix products takes its time, and so does its first product, which is made here with
/// a weight of `[width, width]`. Nothing happens on a CPU.
pub fn start(device: &Device, dtype: DType, width: usize) -> Result<()> {
    #[cfg(feature = "cuda")]
    if device.is_cuda() {
        return super::cuda::start(device, dtype, width);
    }
    let _ = (device, dtype, width);
    Ok(())
}

/// NCCL works on this thread's GPU: as long as this is kept, products that the thread starts leave it
/// multiprocessors.
#[cfg(feature = "cuda")]
pub use super::cuda::Beside;

/// Where the numbers of a contiguous tensor on a GPU begin: good for as long as the tensor is there.
#[cfg(feature = "cuda")]
pub fn address(tensor: &Tensor) -> Result<u64> {
    super::cuda::address_of(tensor)
}

/// A tensor on a GPU whose numbers are not set: the caller has all of them written before any is read.
#[cfg(feature = "cuda")]
pub fn unfilled(shape: impl Into<Shape>, dtype: DType, device: &Device) -> Result<Tensor> {
    super::cuda::unfilled(shape, dtype, device)
}

/// A copy of `x` on the CPU.
///
/// On a GPU it waits for what is written to `x` before it copies: a copy under way keeps other threads
/// from taking or giving back that device's memory, and what is written may come from a rank that
/// waits for just that.
pub fn to_host(x: &Tensor) -> Result<Tensor> {
    x.device().synchronize()?;
    x.to_device(&Device::Cpu)
}

/// Bytes of a GPU's memory that tensors use now, and the most that they used so far; none on a CPU.
pub fn memory(device: &Device) -> Result<Option<[u64; 2]>> {
    #[cfg(feature = "cuda")]
    if let Device::Cuda(cuda) = device {
        return super::cuda::memory(cuda).map(Some);
    }
    let _ = device;
    Ok(None)
}

/// The versions of NVIDIA's libraries of products and attention, by their own word, such as `9.19.0`;
/// nothing of those that are not there, and in a build without GPUs.
pub fn library_versions() -> Vec<(&'static str, String)> {
    #[cfg(feature = "cuda")]
    {
        let versions = super::cuda::library_versions().into_iter();
        versions.filter_map(|(name, version)| Some((name, dotted(version)?))).collect()
    }
    #[cfg(not(feature = "cuda"))]
    Vec::new()
}

/// `2.28.9` for 22809, as NVIDIA's libraries number themselves; none for what is no version.
#[cfg(feature = "cuda")]
pub fn dotted(version: i64) -> Option<String> {
    let [major, minor, patch] = [version / 10_000, version / 100 % 100, version % 100];
    (major > 0).then(|| format!("{major}.{minor}.{patch}"))
}

/// Whether this build has code for GPUs.
pub const BUILT_FOR_GPUS: bool = cfg!(feature = "cuda");

/// GPUs that this build can use on this machine.
pub fn count() -> usize {
    #[cfg(feature = "cuda")]
    {
        use candle_core::cuda_backend::cudarc::driver::CudaContext;
        CudaContext::device_count().ok().and_then(|count| usize::try_from(count).ok()).unwrap_or(0)
    }
    #[cfg(not(feature = "cuda"))]
    0
}

/// A GPU's name, such as `NVIDIA H100 80GB HBM3`; none for a CPU.
pub fn name(device: &Device) -> Result<Option<String>> {
    #[cfg(feature = "cuda")]
    if let Device::Cuda(cuda) = device {
        let name = cuda.cuda_stream().context().name();
        return name.map(Some).map_err(candle_core::Error::wrap);
    }
    let _ = device;
    Ok(None)
}
