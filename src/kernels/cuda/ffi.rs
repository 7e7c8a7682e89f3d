//! The C interface of the CUDA kernels, and what of the driver needs `unsafe`.

#![expect(
    unsafe_code,
    reason = "foreign functions, memory that is not filled, device addresses of tensors"
)]

use super::super::Result;
use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::CudaStorageSlice;
use candle_core::cuda_backend::cudarc::driver::{self, DevicePtr};
use candle_core::{
    CudaDevice, CudaStorage, DType, Device, Shape, Storage, StorageRef, Tensor, bail,
};
use std::ffi::{CStr, c_char, c_int, c_void};
use std::marker::PhantomData;

/// Where numbers lie on the device; lives no longer than the storage that holds them.
#[repr(transparent)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Address<'a>(*mut c_void, PhantomData<&'a ()>);

impl Address<'_> {
    /// No numbers: an argument that is left out.
    pub(super) const NONE: Address<'static> = Address(std::ptr::null_mut(), PhantomData);
}

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

/// The stream in which a device's kernels run.
#[repr(transparent)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Stream(*mut c_void);

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
        Library::started(sft_gemm_create())
    }

    /// cuDNN.
    pub(super) fn sdpa() -> Result<Library> {
        Library::started(sft_sdpa_create())
    }

    fn started(handle: *mut c_void) -> Result<Library> {
        if handle.is_null() {
            bail!("{}", text(sft_library_error()))
        }
        Ok(Library(handle))
    }

    /// For one call.
    pub(super) fn handle(&mut self) -> Handle<'_> {
        Handle(self.0, PhantomData)
    }
}

/// A library in use.
#[repr(transparent)]
#[derive(Debug)]
pub(super) struct Handle<'a>(*mut c_void, PhantomData<&'a mut ()>);

/// What a kernel's return code says.
pub(super) fn check(kernel: &str, code: c_int) -> Result<()> {
    match code {
        0 => Ok(()),
        999 => bail!("{kernel}: {}", text(sft_library_error())),
        code => bail!("{kernel}: {}", text(sft_cuda_error(code))),
    }
}

fn text(message: *const c_char) -> String {
    if message.is_null() {
        return String::new();
    }
    // SAFETY: both sources give texts that end with a zero and stay until the thread's next call.
    unsafe { CStr::from_ptr(message) }.to_string_lossy().into_owned()
}

/// `SftDropout`.
#[repr(C)]
#[derive(Debug)]
pub(super) struct Dropout<'a> {
    pub(super) key: [u32; 2],
    pub(super) step: u64,
    pub(super) threshold: u64,
    pub(super) addresses: Address<'a>,
    pub(super) keep: f32,
}

/// `SftHeads`.
#[repr(C)]
#[derive(Debug)]
pub(super) struct Heads {
    pub(super) heads: i32,
    pub(super) groups: i32,
    pub(super) head_dim: i32,
    pub(super) scale: f32,
    pub(super) first_head: i32,
    pub(super) all_heads: i32,
}

/// `SftAdamW`.
#[repr(C)]
#[derive(Debug)]
pub(super) struct AdamW {
    pub(super) gradient: f32,
    pub(super) betas: [f32; 2],
    pub(super) rests: [f32; 2],
    pub(super) keep: f32,
    pub(super) step_size: f32,
    pub(super) root_scale: f32,
    pub(super) epsilon: f32,
}

type A<'a> = Address<'a>;

// SAFETY: the declarations are those of the `.cu` and `.cpp` files beside this one. The functions
// only enqueue work on a stream (and allocate for the libraries); an `Address` is of numbers that
// are there, and each file of this room sees before a call that shapes and formats fit.
unsafe extern "C" {
    safe fn sft_cuda_error(code: c_int) -> *const c_char;
    safe fn sft_library_error() -> *const c_char;
    safe fn sft_gemm_create() -> *mut c_void;
    safe fn sft_sdpa_create() -> *mut c_void;
    pub(super) safe fn sft_cudnn_version() -> i64;

    pub(super) safe fn sft_linear_forward(
        gemm: Handle<'_>,
        stream: Stream,
        format: c_int,
        x: A<'_>,
        weight: A<'_>,
        bias: A<'_>,
        y: A<'_>,
        before: A<'_>,
        tokens: i64,
        inputs: i64,
        outputs: i64,
    ) -> c_int;
    pub(super) safe fn sft_linear_backward_input(
        gemm: Handle<'_>,
        stream: Stream,
        format: c_int,
        dy: A<'_>,
        weight: A<'_>,
        dx: A<'_>,
        tokens: i64,
        inputs: i64,
        outputs: i64,
    ) -> c_int;
    pub(super) safe fn sft_linear_backward_weight(
        gemm: Handle<'_>,
        stream: Stream,
        format: c_int,
        dy: A<'_>,
        x: A<'_>,
        dw: A<'_>,
        tokens: i64,
        inputs: i64,
        outputs: i64,
    ) -> c_int;

    pub(super) safe fn sft_norm_backward_workspace(rows: i64, width: i64) -> i64;
    pub(super) safe fn sft_norm_forward(
        stream: Stream,
        format: c_int,
        kind: c_int,
        epsilon: f32,
        x: A<'_>,
        x_bias: A<'_>,
        dropout: Option<&Dropout<'_>>,
        residual: A<'_>,
        sum: A<'_>,
        weight: A<'_>,
        bias: A<'_>,
        y: A<'_>,
        moments: A<'_>,
        rows: i64,
        width: i64,
    ) -> c_int;
    pub(super) safe fn sft_norm_backward(
        stream: Stream,
        format: c_int,
        kind: c_int,
        x: A<'_>,
        moments: A<'_>,
        weight: A<'_>,
        dy: A<'_>,
        residual: A<'_>,
        dx: A<'_>,
        workspace: A<'_>,
        d_weight: A<'_>,
        d_bias: A<'_>,
        d_sum: A<'_>,
        rows: i64,
        width: i64,
    ) -> c_int;

    pub(super) safe fn sft_column_workspace(rows: i64, width: i64) -> i64;
    pub(super) safe fn sft_column_sums(
        stream: Stream,
        format: c_int,
        x: A<'_>,
        rows: i64,
        width: i64,
        workspace: A<'_>,
        sum: A<'_>,
    ) -> c_int;
    pub(super) safe fn sft_activation_forward(
        stream: Stream,
        format: c_int,
        kind: c_int,
        x: A<'_>,
        bias: A<'_>,
        y: A<'_>,
        rows: i64,
        out_width: i64,
    ) -> c_int;
    pub(super) safe fn sft_activation_backward(
        stream: Stream,
        format: c_int,
        kind: c_int,
        x: A<'_>,
        bias: A<'_>,
        dy: A<'_>,
        dx: A<'_>,
        workspace: A<'_>,
        d_bias: A<'_>,
        rows: i64,
        out_width: i64,
    ) -> c_int;

    pub(super) safe fn sft_residual_forward(
        stream: Stream,
        format: c_int,
        x: A<'_>,
        bias: A<'_>,
        dropout: Option<&Dropout<'_>>,
        residual: A<'_>,
        y: A<'_>,
        rows: i64,
        width: i64,
    ) -> c_int;
    pub(super) safe fn sft_rotary(
        stream: Stream,
        format: c_int,
        qkv: A<'_>,
        table: A<'_>,
        positions: A<'_>,
        rows: i64,
        groups: i64,
        turning: i64,
        head_dim: i64,
        pairs: i64,
        sign: f32,
    ) -> c_int;
    pub(super) safe fn sft_scale(
        stream: Stream,
        format: c_int,
        x: A<'_>,
        count: i64,
        factor: f32,
    ) -> c_int;
    pub(super) safe fn sft_add(
        stream: Stream,
        format: c_int,
        x: A<'_>,
        y_format: c_int,
        y: A<'_>,
        count: i64,
        factor: f32,
    ) -> c_int;
    pub(super) safe fn sft_cast(
        stream: Stream,
        format: c_int,
        x: A<'_>,
        y_format: c_int,
        y: A<'_>,
        count: i64,
    ) -> c_int;
    pub(super) safe fn sft_clear(stream: Stream, x: A<'_>, bytes: i64) -> c_int;

    pub(super) safe fn sft_gather(
        stream: Stream,
        format: c_int,
        table: A<'_>,
        ids: A<'_>,
        first: i64,
        rows: i64,
        positions: A<'_>,
        places: A<'_>,
        out: A<'_>,
        tokens: i64,
        width: i64,
    ) -> c_int;
    pub(super) safe fn sft_scatter_add(
        stream: Stream,
        table_format: c_int,
        table: A<'_>,
        unique: A<'_>,
        count: i64,
        bounds: A<'_>,
        order: A<'_>,
        format: c_int,
        dy: A<'_>,
        width: i64,
    ) -> c_int;

    pub(super) safe fn sft_cross_entropy_statistics(
        stream: Stream,
        format: c_int,
        logits: A<'_>,
        labels: A<'_>,
        first: i64,
        vocab_size: i64,
        out: A<'_>,
        rows: i64,
        columns: i64,
    ) -> c_int;
    pub(super) safe fn sft_cross_entropy_gradient(
        stream: Stream,
        format: c_int,
        logits: A<'_>,
        labels: A<'_>,
        first: i64,
        vocab_size: i64,
        statistics: A<'_>,
        factor: f32,
        rows: i64,
        columns: i64,
    ) -> c_int;
    pub(super) safe fn sft_cross_entropy(
        stream: Stream,
        format: c_int,
        logits: A<'_>,
        labels: A<'_>,
        vocab_size: i64,
        statistics: A<'_>,
        factor: f32,
        rows: i64,
        columns: i64,
    ) -> c_int;
    pub(super) safe fn sft_loss_sum(
        stream: Stream,
        statistics: A<'_>,
        rows: i64,
        total: A<'_>,
    ) -> c_int;

    pub(super) safe fn sft_adamw(
        stream: Stream,
        parameters: A<'_>,
        gradients: A<'_>,
        first: A<'_>,
        second: A<'_>,
        copy_format: c_int,
        copy: A<'_>,
        count: i64,
        by: &AdamW,
    ) -> c_int;
    pub(super) safe fn sft_squares_workspace() -> i64;
    pub(super) safe fn sft_sum_of_squares(
        stream: Stream,
        format: c_int,
        x: A<'_>,
        count: i64,
        workspace: A<'_>,
        total: A<'_>,
    ) -> c_int;

    pub(super) safe fn sft_attention_tile() -> i64;
    pub(super) safe fn sft_attention_forward(
        stream: Stream,
        format: c_int,
        heads: &Heads,
        dropout: Option<&Dropout<'_>>,
        tiles: A<'_>,
        count: i64,
        qkv: A<'_>,
        output: A<'_>,
        log_sums: A<'_>,
    ) -> c_int;
    pub(super) safe fn sft_attention_backward(
        stream: Stream,
        format: c_int,
        heads: &Heads,
        dropout: Option<&Dropout<'_>>,
        tiles: A<'_>,
        count: i64,
        qkv: A<'_>,
        output: A<'_>,
        log_sums: A<'_>,
        dy: A<'_>,
        along: A<'_>,
        dqkv: A<'_>,
        tokens: i64,
    ) -> c_int;
    pub(super) safe fn sft_attention_cached(
        stream: Stream,
        format: c_int,
        heads: &Heads,
        qkv: A<'_>,
        cache: A<'_>,
        slots: A<'_>,
        places: A<'_>,
        capacity: i64,
        output: A<'_>,
        rows: i64,
    ) -> c_int;

    pub(super) safe fn sft_sdpa_forward(
        sdpa: Handle<'_>,
        stream: Stream,
        format: c_int,
        sequences: i64,
        length: i64,
        heads: i64,
        groups: i64,
        head_dim: i64,
        scale: f32,
        lengths: A<'_>,
        qkv_offsets: A<'_>,
        o_offsets: A<'_>,
        qkv: A<'_>,
        output: A<'_>,
        statistics: A<'_>,
    ) -> c_int;
    pub(super) safe fn sft_sdpa_backward(
        sdpa: Handle<'_>,
        stream: Stream,
        format: c_int,
        sequences: i64,
        length: i64,
        heads: i64,
        groups: i64,
        head_dim: i64,
        scale: f32,
        lengths: A<'_>,
        qkv_offsets: A<'_>,
        o_offsets: A<'_>,
        qkv: A<'_>,
        output: A<'_>,
        statistics: A<'_>,
        d_output: A<'_>,
        dqkv: A<'_>,
    ) -> c_int;
}
