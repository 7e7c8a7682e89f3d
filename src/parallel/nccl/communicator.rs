//! NCCL's communicators: what of NCCL needs `unsafe`.
//!
//! They do not block: a call that has to reach the other ranks first (starting, connecting) is
//! asked again and again whether it is done, so that a rank whose fellow has failed meanwhile gives
//! up instead of waiting for ever.

#![expect(unsafe_code, reason = "foreign functions, handles, addresses on a device")]

use crate::kernels::device::dotted;
use crate::parallel::group::Reduction;
use candle_core::cuda_backend::cudarc::driver::CudaStream;
use candle_core::cuda_backend::cudarc::nccl::sys;
use candle_core::{DType, Error, Result, bail};
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::fmt;
use std::mem::MaybeUninit;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Asks whether the ranks of the process still go on; an error says why not.
pub(super) type GoesOn<'a> = dyn Fn() -> Result<()> + 'a;

/// Bytes by which the ranks of a communicator find each other.
pub(super) const ID_BYTES: usize = 128;

/// One rank's end of a communicator.
pub(super) struct Communicator {
    /// None once it is given up.
    handle: Mutex<Option<Handle>>,
    /// Its own.
    stream: Arc<CudaStream>,
    /// That of the device's kernels.
    kernels: Arc<CudaStream>,
}

impl fmt::Debug for Communicator {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Communicator")
    }
}

struct Handle(sys::ncclComm_t);

// SAFETY: NCCL's communicators may be used from any thread, one at a time: a lock sees to it.
unsafe impl Send for Handle {}

/// Numbers on a device.
#[derive(Clone, Copy, Debug)]
pub(super) struct Numbers {
    /// Address of those read.
    pub(super) from: u64,
    /// Address of those written.
    pub(super) to: u64,
    /// How many, on each rank.
    pub(super) count: usize,
    /// Their format.
    pub(super) dtype: DType,
}

/// What NCCL is to do with them.
#[derive(Clone, Copy, Debug)]
pub(super) enum Operation {
    AllReduce(Reduction),
    AllGather,
    ReduceScatter,
    Broadcast { root: usize },
    Send { peer: usize },
    Receive { peer: usize },
}

/// NCCL 2.28, whose form of settings is used.
const OLDEST: c_int = 22_800;

/// An operation and its numbers.
pub(super) type Work = (Operation, Numbers);

impl Communicator {
    /// A new communicator's id, to be handed to all its ranks.
    pub(super) fn new_id() -> Result<[u8; ID_BYTES]> {
        let mut id = MaybeUninit::<sys::ncclUniqueId>::uninit();
        // SAFETY: the function fills the id.
        let code = unsafe { sys::ncclGetUniqueId(id.as_mut_ptr()) };
        check(code, std::ptr::null_mut())?;
        // SAFETY: it has just been filled.
        let id = unsafe { id.assume_init() };
        Ok(id.internal.map(|byte| byte.to_ne_bytes()[0]))
    }

    /// NCCL's version, such as 22809; none where it is not there.
    pub(super) fn version() -> Option<c_int> {
        let mut version = 0;
        // SAFETY: the function writes one number.
        let code = unsafe { sys::ncclGetVersion(&raw mut version) };
        (code == sys::ncclResult_t::ncclSuccess && version > 0).then_some(version)
    }

    /// Rank `rank` of `size` of the communicator with this id; waits for the others.
    pub(super) fn open(
        id: [u8; ID_BYTES],
        (rank, size): (usize, usize),
        [stream, kernels]: [Arc<CudaStream>; 2],
        goes_on: &GoesOn<'_>,
    ) -> Result<Communicator> {
        if let Some(found) = Communicator::version().filter(|version| *version < OLDEST) {
            let found = dotted(i64::from(found)).unwrap_or_default();
            bail!("NCCL {found} is installed, and 2.28 or later is needed")
        }
        stream.context().bind_to_thread().map_err(Error::wrap)?;
        let id = sys::ncclUniqueId { internal: id.map(|byte| c_char::from_ne_bytes([byte])) };
        let (mut config, mut handle) = (config(), std::ptr::null_mut());
        let (rank, size) = (number(rank)?, number(size)?);
        // SAFETY: both pointers are of values that outlive the call; the device is the thread's
        // current one.
        let code = unsafe {
            sys::ncclCommInitRankConfig(&raw mut handle, size, id, rank, &raw mut config)
        };
        check(code, std::ptr::null_mut())?;
        let communicator =
            Communicator { handle: Mutex::new(Some(Handle(handle))), stream, kernels };
        match communicator.finish_call(goes_on) {
            Ok(()) => Ok(communicator),
            Err(error) => {
                communicator.give_up();
                Err(error)
            }
        }
    }

    /// Its own stream.
    pub(super) fn stream(&self) -> &Arc<CudaStream> {
        &self.stream
    }

    /// The stream of the device's kernels.
    pub(super) fn kernels(&self) -> &Arc<CudaStream> {
        &self.kernels
    }

    /// Waits until all that was begun is done.
    pub(super) fn settle(&self) -> Result<()> {
        self.stream.synchronize().and_then(|()| self.kernels.synchronize()).map_err(Error::wrap)
    }

    /// `result`; if it is a failure, the kernels' stream waits for what has begun in its own in spite of
    /// it, and works in memory that is given back in the kernels' stream.
    pub(super) fn or_settled<R>(&self, result: Result<R>) -> Result<R> {
        result.inspect_err(|_| {
            let _ = self.kernels.join(&self.stream);
        })
    }

    /// Puts operations into one of its two streams, all of them in one call: each call that does not
    /// block costs NCCL a thread of its own.
    ///
    /// The caller keeps the numbers where they are until the stream has come past them.
    pub(super) fn run(
        &self,
        works: &[Work],
        stream: &CudaStream,
        goes_on: &GoesOn<'_>,
    ) -> Result<()> {
        stream.context().bind_to_thread().map_err(Error::wrap)?;
        let locked = self.lock();
        let Some(Handle(handle)) = &*locked else { return Err(given_up()) };
        // SAFETY: a call without arguments, whose end follows whatever happens between.
        check(unsafe { sys::ncclGroupStart() }, *handle)?;
        let started = works.iter().try_for_each(|(operation, numbers)| {
            check_or_told(start(*operation, *numbers, *handle, stream)?, *handle, goes_on)
        });
        // SAFETY: see above.
        let ended = unsafe { sys::ncclGroupEnd() };
        started?;
        check_or_told(ended, *handle, goes_on)?;
        drop(locked);
        self.finish_call(goes_on)
    }

    /// Waits until the last call has done all that it does before it returns.
    fn finish_call(&self, goes_on: &GoesOn<'_>) -> Result<()> {
        loop {
            let locked = self.lock();
            let Some(Handle(handle)) = &*locked else { return Err(given_up()) };
            let mut state = sys::ncclResult_t::ncclSuccess;
            // SAFETY: the communicator is there while the lock is held.
            check(unsafe { sys::ncclCommGetAsyncError(*handle, &raw mut state) }, *handle)?;
            check_or_told(state, *handle, goes_on)?;
            if state != sys::ncclResult_t::ncclInProgress {
                return Ok(());
            }
            drop(locked);
            goes_on()?;
            std::thread::yield_now();
        }
    }

    /// Ends whatever is under way, here and in the streams, and every later call; does nothing the
    /// second time.
    pub(super) fn give_up(&self) {
        let Some(Handle(handle)) = self.lock().take() else { return };
        // SAFETY: nobody else has the handle any more.
        unsafe { sys::ncclCommAbort(handle) };
    }

    fn lock(&self) -> MutexGuard<'_, Option<Handle>> {
        self.handle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn start(
    operation: Operation,
    Numbers { from, to, count, dtype }: Numbers,
    handle: sys::ncclComm_t,
    stream: &CudaStream,
) -> Result<sys::ncclResult_t> {
    let (from, to, kind) = (from as *const c_void, to as *mut c_void, kind(dtype)?);
    let stream = stream.cu_stream().cast();
    // SAFETY: the addresses are of `count` numbers that stay where they are until the stream has
    // come past (see `run`), the communicator and the stream are there and of one device.
    Ok(unsafe {
        match operation {
            Operation::AllReduce(by) => {
                let by = match by {
                    Reduction::Sum => sys::ncclRedOp_t::ncclSum,
                    Reduction::Max => sys::ncclRedOp_t::ncclMax,
                };
                sys::ncclAllReduce(from, to, count, kind, by, handle, stream)
            }
            Operation::AllGather => sys::ncclAllGather(from, to, count, kind, handle, stream),
            Operation::ReduceScatter => {
                let sum = sys::ncclRedOp_t::ncclSum;
                sys::ncclReduceScatter(from, to, count, kind, sum, handle, stream)
            }
            Operation::Broadcast { root } => {
                sys::ncclBroadcast(from, to, count, kind, number(root)?, handle, stream)
            }
            Operation::Send { peer } => {
                sys::ncclSend(from, count, kind, number(peer)?, handle, stream)
            }
            Operation::Receive { peer } => {
                sys::ncclRecv(to, count, kind, number(peer)?, handle, stream)
            }
        }
    })
}

/// NCCL's defaults, except that calls do not block.
fn config() -> sys::ncclConfig_t {
    /// `NCCL_CONFIG_UNDEF_INT`: as the library thinks best.
    const DEFAULT: c_int = c_int::MIN;
    sys::ncclConfig_t {
        size: size_of::<sys::ncclConfig_t>(),
        magic: 0xcafe_beef,
        version: OLDEST as c_uint,
        blocking: 0,
        cgaClusterSize: DEFAULT,
        minCTAs: DEFAULT,
        maxCTAs: DEFAULT,
        netName: std::ptr::null(),
        splitShare: DEFAULT,
        trafficClass: DEFAULT,
        commName: std::ptr::null(),
        collnetEnable: DEFAULT,
        CTAPolicy: DEFAULT,
        shrinkShare: DEFAULT,
        nvlsCTAs: DEFAULT,
        nChannelsPerNetPeer: DEFAULT,
        nvlinkCentricSched: DEFAULT,
    }
}

fn kind(dtype: DType) -> Result<sys::ncclDataType_t> {
    match dtype {
        DType::F32 => Ok(sys::ncclDataType_t::ncclFloat32),
        DType::BF16 => Ok(sys::ncclDataType_t::ncclBfloat16),
        DType::F16 => Ok(sys::ncclDataType_t::ncclFloat16),
        DType::F64 => Ok(sys::ncclDataType_t::ncclFloat64),
        DType::U32 => Ok(sys::ncclDataType_t::ncclUint32),
        DType::I64 => Ok(sys::ncclDataType_t::ncclInt64),
        DType::U8 => Ok(sys::ncclDataType_t::ncclUint8),
        other => bail!("GPUs do not exchange {other:?}"),
    }
}

fn number(count: usize) -> Result<c_int> {
    c_int::try_from(count).map_err(Error::wrap)
}

fn given_up() -> Error {
    Error::Msg("given up: the ranks' communicator was ended".to_owned())
}

/// [`check`], which lets another node's end be told by the node's own connection, with the node's name:
/// NCCL may see its connections closed a moment earlier, and does not know whose they were.
fn check_or_told(
    code: sys::ncclResult_t,
    handle: sys::ncclComm_t,
    goes_on: &GoesOn<'_>,
) -> Result<()> {
    const TOLD: Duration = Duration::from_secs(2);
    let start = Instant::now();
    while code == sys::ncclResult_t::ncclRemoteError && start.elapsed() < TOLD {
        goes_on()?;
        std::thread::sleep(Duration::from_millis(5));
    }
    check(code, handle)
}

fn check(code: sys::ncclResult_t, handle: sys::ncclComm_t) -> Result<()> {
    use sys::ncclResult_t::{ncclInProgress, ncclSuccess};
    if matches!(code, ncclSuccess | ncclInProgress) {
        return Ok(());
    }
    // SAFETY: the library gives texts that end with a zero and stay, for any code and for no
    // communicator too.
    let [what, why] = unsafe {
        [sys::ncclGetErrorString(code), sys::ncclGetLastError(handle)].map(|text| {
            if text.is_null() {
                String::new()
            } else {
                CStr::from_ptr(text).to_string_lossy().into_owned()
            }
        })
    };
    bail!("NCCL: {what}{}{why}", if why.is_empty() { "" } else { ": " })
}
