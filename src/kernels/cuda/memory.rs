//! Memory, stream and libraries of a GPU: what of the driver needs `unsafe`.

#![expect(
    unsafe_code,
    reason = "memory that is not filled, texts and settings of the driver, handles"
)]

use super::ffi::{self, Address, Handle, Stream};
use crate::kernels::Result;
use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::CudaStorageSlice;
use candle_core::cuda_backend::cudarc::driver::{self, DevicePtr};
use candle_core::{
    CudaDevice, CudaStorage, DType, Device, Shape, Storage, StorageRef, Tensor, bail,
};
use std::ffi::{CStr, c_char, c_int, c_void};
use std::marker::PhantomData;

/// A tensor whose storage is kept in place while kernels that use it are started.
pub(super) struct Held<'a> {
    _storage: StorageRef<'a>,
    address: *mut c_void,
}

impl Held<'_> {
    /// The address of its first number.
    pub(super) fn at(&self) -> Address<'_> {
        Address(self.address, PhantomData)
    }
}

/// Keeps a contiguous tensor on a GPU in place.
///
/// Kernels are started in one stream per device, in which memory is also given back, so a tensor may
/// be dropped before the kernels that use it have run.
pub(super) fn hold(tensor: &Tensor) -> Result<Held<'_>> {
    let (storage, layout) = tensor.storage_and_layout();
    let Some((first, _)) = layout.contiguous_offsets() else {
        bail!("kernels read contiguous tensors only, not {layout:?}")
    };
    let Storage::Cuda(cuda) = &*storage else {
        bail!("a tensor on {:?} meets one on a GPU", tensor.device())
    };
    let address = base(cuda)? + (first * tensor.dtype().size_in_bytes()) as u64;
    Ok(Held { _storage: storage, address: address as *mut c_void })
}

/// The device address of a storage's first number.
fn base(storage: &CudaStorage) -> Result<u64> {
    let stream = storage.device().cuda_stream();
    let address = match &storage.slice {
        CudaStorageSlice::F32(values) => values.device_ptr(&stream).0,
        CudaStorageSlice::BF16(values) => values.device_ptr(&stream).0,
        CudaStorageSlice::F16(values) => values.device_ptr(&stream).0,
        CudaStorageSlice::F64(values) => values.device_ptr(&stream).0,
        CudaStorageSlice::U32(values) => values.device_ptr(&stream).0,
        CudaStorageSlice::I16(values) => values.device_ptr(&stream).0,
        CudaStorageSlice::I64(values) => values.device_ptr(&stream).0,
        CudaStorageSlice::U8(values) => values.device_ptr(&stream).0,
        _ => bail!("kernels have no form for {:?}", storage.dtype()),
    };
    Ok(address)
}

/// A tensor whose numbers are not set; the caller has a kernel write all of them before any is read.
pub(super) fn unfilled(shape: impl Into<Shape>, dtype: DType, device: &Device) -> Result<Tensor> {
    // SAFETY: every caller in this room hands it to a kernel that writes all of it.
    unsafe { Tensor::empty(shape, dtype, device) }
}

/// Copies words to where a tensor of as many begins, in the device's stream.
pub(super) fn send(words: &[u32], to: &Tensor) -> Result<()> {
    let (held, Device::Cuda(device)) = (hold(to)?, to.device()) else { bail!("not on a GPU") };
    if to.dtype() != DType::U32 || to.elem_count() != words.len() {
        bail!("{} words do not fill {:?} of {:?}", words.len(), to.shape(), to.dtype())
    }
    let stream = device.cuda_stream();
    stream.context().bind_to_thread().map_err(candle_core::Error::wrap)?;
    // SAFETY: the tensor has room for them and stays in place; words that are not page-locked are read
    // before the call returns.
    unsafe { driver::result::memcpy_htod_async(held.address as u64, words, stream.cu_stream()) }
        .map_err(candle_core::Error::wrap)
}

/// A GPU with a stream of its own, without an event per allocation, and with a pool that keeps its memory.
pub(super) fn open(ordinal: usize) -> Result<CudaDevice> {
    let device = CudaDevice::new_with_stream(ordinal)?;
    // SAFETY: all work on the device is done in its one stream, so no event is needed to order it.
    unsafe { device.disable_event_tracking() };
    keep_pool(&device).map_err(candle_core::Error::wrap)?;
    Ok(device)
}

/// Lets the driver's pool keep freed memory; as it comes, it returns it at every synchronization.
fn keep_pool(device: &CudaDevice) -> std::result::Result<(), driver::DriverError> {
    let mut threshold = u64::MAX;
    let stream = device.cuda_stream();
    let gpu = stream.context().cu_device();
    // SAFETY: the device is open, the attribute takes a u64.
    unsafe {
        let pool = driver::result::device::get_default_mem_pool(gpu)?;
        let kept = driver::sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        driver::result::mem_pool::set_attribute(pool, kept, (&raw mut threshold).cast())
    }
}

/// Bytes of the device's pool in use now, and the most so far.
pub(super) fn pool_bytes(device: &CudaDevice) -> Result<[u64; 2]> {
    let stream = device.cuda_stream();
    let gpu = stream.context().cu_device();
    let mut bytes = [0_u64; 2];
    let attributes = [
        driver::sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_CURRENT,
        driver::sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH,
    ];
    for (bytes, attribute) in bytes.iter_mut().zip(attributes) {
        // SAFETY: the device is open, the attributes give a u64.
        unsafe {
            let pool = driver::result::device::get_default_mem_pool(gpu)
                .map_err(candle_core::Error::wrap)?;
            driver::result::mem_pool::get_attribute(
                pool,
                attribute,
                std::ptr::from_mut(bytes).cast(),
            )
            .map_err(candle_core::Error::wrap)?;
        }
    }
    Ok(bytes)
}

/// The device's stream, with the device made this thread's current one.
pub(super) fn stream(device: &CudaDevice) -> Result<Stream> {
    let stream = device.cuda_stream();
    stream.context().bind_to_thread().map_err(candle_core::Error::wrap)?;
    Ok(Stream(stream.cu_stream().cast()))
}

/// State of one of NVIDIA's libraries for one device: used by one thread at a time.
#[repr(transparent)]
#[derive(Debug)]
pub(super) struct Library(*mut c_void);

// SAFETY: cuBLASLt's and cuDNN's handles may be used from any thread, one at a time; the room keeps
// them behind a lock.
unsafe impl Send for Library {}

impl Library {
    /// cuBLASLt.
    pub(super) fn gemm() -> Result<Library> {
        Library::started(ffi::libraries::sft_gemm_create())
    }

    /// cuDNN.
    pub(super) fn sdpa() -> Result<Library> {
        Library::started(ffi::libraries::sft_sdpa_create())
    }

    fn started(handle: *mut c_void) -> Result<Library> {
        if handle.is_null() {
            bail!("{}", text(ffi::libraries::sft_library_error()))
        }
        Ok(Library(handle))
    }

    /// For one call.
    pub(super) fn handle(&mut self) -> Handle<'_> {
        Handle(self.0, PhantomData)
    }
}

/// What a kernel's return code says.
pub(super) fn check(kernel: &str, code: c_int) -> Result<()> {
    match code {
        0 => Ok(()),
        999 => bail!("{kernel}: {}", text(ffi::libraries::sft_library_error())),
        code => bail!("{kernel}: {}", text(ffi::sft_cuda_error(code))),
    }
}

fn text(message: *const c_char) -> String {
    if message.is_null() {
        return String::new();
    }
    // SAFETY: both sources give texts that end with a zero and stay until the thread's next call.
    unsafe { CStr::from_ptr(message) }.to_string_lossy().into_owned()
}
