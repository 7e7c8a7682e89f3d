//! The same operations on NVIDIA GPUs: kernels of our own, cuBLASLt's products, cuDNN's attention.
//!
//! Each function takes what its namesake for the CPU takes and gives the same within rounding. Tensors
//! lie on one device; f32, bf16 and f16 are computed on in f32; nothing uses a float atomic, so the
//! same call gives the same bits. Lists of indices stay slices on the host: [`context`] keeps those
//! of the current micro-batch on the device.

pub(super) mod activation;
pub(super) mod argmax;
mod arguments;
pub(super) mod attention;
mod context;
pub(super) mod cross_entropy;
pub(super) mod embedding;
mod ffi;
pub(super) mod graph;
pub(super) mod linear;
pub(super) mod linear_activation;
mod memory;
pub(super) mod norm;
pub(super) mod optimizer;
pub(super) mod reduce;
pub(super) mod residual;
pub(super) mod rotary;
mod timing;

use crate::kernels::Result;
use crate::kernels::timing::{Part, Times};
use candle_core::{CudaDevice, DType, Device, Shape, Tensor, bail};
pub use context::Beside;
use context::{format, of};
use ffi::Address;
use memory::{Held, check, hold};

/// GPU `ordinal`, with a stream of its own.
pub(super) fn open(ordinal: usize) -> Result<Device> {
    Ok(Device::Cuda(context::open(ordinal)?))
}

/// Starts the library of matrix products, and has it load what a product needs.
pub(super) fn start(device: &Device, dtype: DType, width: usize) -> Result<()> {
    let x = Tensor::zeros((FEW_ROWS, width), dtype, device)?;
    linear::forward(&x, &Tensor::zeros((width, width), dtype, device)?, None)?;
    device.synchronize()
}

/// Rows of a product as a step of decoding has them.
const FEW_ROWS: usize = 8;

/// Bytes of device memory in use now, and the most so far.
pub(super) fn memory(device: &CudaDevice) -> Result<[u64; 2]> {
    memory::pool_bytes(device)
}

/// What the libraries say of their own versions, such as 91900; those that are not there say less than
/// the oldest that may be used.
pub(super) fn library_versions() -> [(&'static str, i64); 2] {
    [
        ("cuBLASLt", ffi::libraries::sft_cublas_version()),
        ("cuDNN", ffi::libraries::sft_cudnn_version()),
    ]
}

/// Times what is started on a GPU from now on.
pub(super) fn begin_timing(device: &Device) -> Result<()> {
    context::of_device(device)?.begin_timing();
    Ok(())
}

/// What a GPU did since then.
pub(super) fn end_timing(device: &Device) -> Result<Times> {
    context::of_device(device)?.end_timing()
}

/// Does `work`, by which the device's stream waits for other ranks.
pub(super) fn communication<R>(device: &Device, work: impl FnOnce() -> Result<R>) -> Result<R> {
    let context = context::timed(device);
    let timed = context.as_deref().map(|context| context.work(Part::Communication)).transpose()?;
    let result = work();
    drop(timed);
    result
}

/// A count, a width or a place as kernels take it.
#[expect(clippy::cast_possible_wrap, reason = "no tensor has 2^63 numbers")]
fn size(n: usize) -> i64 {
    n as i64
}

/// Where the numbers of a contiguous tensor begin.
pub(super) fn address_of(tensor: &Tensor) -> Result<u64> {
    Ok(hold(tensor)?.at().0 as u64)
}

/// A tensor to be written whole before it is read.
pub(super) fn unfilled(shape: impl Into<Shape>, dtype: DType, device: &Device) -> Result<Tensor> {
    memory::unfilled(shape, dtype, device)
}

/// `x` in `dtype`: itself, or a copy.
fn in_format(x: &Tensor, dtype: DType) -> Result<Tensor> {
    if x.dtype() == dtype {
        return Ok(x.clone());
    }
    let context = of(x)?;
    let y = context.unfilled(x.shape(), dtype)?;
    let (from, to) = (hold(x)?, hold(&y)?);
    let work = context.work(Part::Other)?;
    let code = ffi::sft_cast(
        work.stream(),
        format(x.dtype())?,
        from.at(),
        format(dtype)?,
        to.at(),
        size(x.elem_count()),
    );
    check("cast", code)?;
    drop((from, to));
    Ok(y)
}

/// A tensor that may be left out, in `dtype`.
fn optional(x: Option<&Tensor>, dtype: DType) -> Result<Option<Tensor>> {
    x.map(|x| in_format(x, dtype)).transpose()
}

fn hold_optional(x: Option<&Tensor>) -> Result<Option<Held<'_>>> {
    x.map(hold).transpose()
}

fn address<'a>(held: Option<&'a Held<'_>>) -> Address<'a> {
    held.map_or(Address::NONE, |held| held.at())
}

/// Refuses a gradient that is not in f32.
fn expect_f32(name: &str, gradient: &Tensor) -> Result<()> {
    if gradient.dtype() == DType::F32 {
        return Ok(());
    }
    bail!("{name} is in {:?}: on a GPU gradients of parameters are in f32", gradient.dtype())
}
