//! A GPU as the operations see it: its stream, its libraries, the lists of indices that were sent to it.

use super::ffi::{self, Dropout, Stream};
use super::graph::Recording;
use super::memory::{self, Held, Library};
use super::size;
use super::timing::Spans;
use crate::kernels::Result;
use crate::kernels::dropout;
use candle_core::cuda_backend::DeviceId;
use candle_core::{CudaDevice, DType, Device, Tensor, bail};
use std::collections::VecDeque;
use std::ffi::c_int;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// Multiprocessors that products spare for NCCL: its blocks on two H200s that `NVLink` connects, where
/// more and fewer were slower (tests/bench/RESULTS.md).
const TAKEN_BY_OTHERS: c_int = 24;

thread_local! {
    /// Kept once more for each work of others beside the operations that this thread starts.
    static OTHERS: Arc<()> = Arc::new(());
}

/// Work of others on the GPU of the thread that made this, while it is kept (by any thread).
#[derive(Debug)]
pub struct Beside(#[expect(dead_code, reason = "counted, not read")] Arc<()>);

impl Beside {
    /// From now on others work there too.
    pub fn begin() -> Beside {
        Beside(OTHERS.with(Arc::clone))
    }
}

/// Whether others work on this thread's GPU.
fn is_shared() -> bool {
    OTHERS.with(|others| Arc::strong_count(others) > 1)
}

/// What the operations keep for one device.
pub(super) struct Context {
    id: DeviceId,
    device: Device,
    gemm: Mutex<Library>,
    /// Opened when it is first asked for, which takes its time; none where it is not there.
    sdpa: OnceLock<Option<Mutex<Library>>>,
    words: Mutex<Kept<u32>>,
    wide: Mutex<Kept<u64>>,
    places: Mutex<Kept<usize>>,
    /// Those of the optimizer's runs, which come in every step.
    bounds: Mutex<Kept<usize>>,
    /// Where somebody measures, what was started.
    pub(super) spans: Mutex<Option<Spans>>,
    /// While a step is recorded, what its operations use.
    recording: Mutex<Option<Recording>>,
}

static CONTEXTS: Mutex<Vec<Arc<Context>>> = Mutex::new(Vec::new());

/// The device's context, if somebody measures there.
pub(super) fn timed(device: &Device) -> Option<Arc<Context>> {
    let Device::Cuda(cuda) = device else { return None };
    let contexts = locked(&CONTEXTS);
    contexts.iter().find(|context| context.id == cuda.id() && context.is_timed()).cloned()
}

/// The device's context; made when it is first asked for.
pub(super) fn of(tensor: &Tensor) -> Result<Arc<Context>> {
    of_device(tensor.device())
}

/// The same, of a device.
pub(super) fn of_device(device: &Device) -> Result<Arc<Context>> {
    let Device::Cuda(cuda) = device else { bail!("not on a GPU") };
    let mut contexts = locked(&CONTEXTS);
    if let Some(context) = contexts.iter().find(|context| context.id == cuda.id()) {
        return Ok(context.clone());
    }
    memory::stream(cuda)?;
    let context = Arc::new(Context {
        id: cuda.id(),
        device: device.clone(),
        gemm: Mutex::new(Library::gemm()?),
        sdpa: OnceLock::new(),
        words: Mutex::default(),
        wide: Mutex::default(),
        places: Mutex::default(),
        bounds: Mutex::new(Kept { most: 512, ..Kept::default() }),
        spans: Mutex::default(),
        recording: Mutex::default(),
    });
    contexts.push(context.clone());
    Ok(context)
}

/// What a lock holds; a thread that panicked left nothing half done here.
pub(super) fn locked<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Context {
    pub(super) fn device(&self) -> &Device {
        &self.device
    }

    pub(super) fn stream(&self) -> Result<Stream> {
        let Device::Cuda(cuda) = &self.device else { bail!("not on a GPU") };
        memory::stream(cuda)
    }

    /// cuBLASLt, whose products leave room for what others do beside this thread's operations.
    pub(super) fn gemm(&self) -> MutexGuard<'_, Library> {
        let mut gemm = locked(&self.gemm);
        let taken = if is_shared() { TAKEN_BY_OTHERS } else { 0 };
        ffi::libraries::sft_gemm_spare(gemm.handle(), taken);
        gemm
    }

    /// cuDNN, where it is there.
    pub(super) fn sdpa(&self) -> Option<MutexGuard<'_, Library>> {
        self.sdpa.get_or_init(|| Library::sdpa().map(Mutex::new).ok()).as_ref().map(locked)
    }

    /// A tensor to be written whole by a kernel.
    pub(super) fn unfilled(
        &self,
        shape: impl Into<candle_core::Shape>,
        dtype: DType,
    ) -> Result<Tensor> {
        match &mut *locked(&self.recording) {
            Some(recording) => recording.unfilled(shape.into(), dtype, &self.device),
            None => memory::unfilled(shape, dtype, &self.device),
        }
    }

    /// What `work` gives, whose operations use what `recording` has, and the recording after it.
    pub(super) fn recorded<R>(
        &self,
        recording: Recording,
        work: impl FnOnce() -> Result<R>,
    ) -> (Result<R>, Recording) {
        *locked(&self.recording) = Some(recording);
        let result = work();
        (result, locked(&self.recording).take().unwrap_or_default())
    }

    /// Workspace of `count` numbers of f32.
    pub(super) fn workspace(&self, count: i64) -> Result<Tensor> {
        self.unfilled(usize::try_from(count).unwrap_or_default().max(1), DType::F32)
    }

    /// Ids, labels or positions on the device.
    pub(super) fn words(&self, list: &[u32]) -> Result<Tensor> {
        if let Some(recording) = &*locked(&self.recording) {
            return recording.words(list);
        }
        let send = || Ok(vec![Tensor::new(list, &self.device)?]);
        Ok(self.kept(&self.words, "list", list, send)?.swap_remove(0))
    }

    /// What `make` gives for a list of words, kept under `what`.
    pub(super) fn of_words(
        &self,
        what: &'static str,
        list: &[u32],
        make: impl FnOnce() -> Result<Vec<Tensor>>,
    ) -> Result<Vec<Tensor>> {
        self.kept(&self.words, what, list, make)
    }

    /// What `make` gives for a list, kept under `what`. A step that is recorded has none: it would be
    /// launched again with the lists of its first run.
    fn kept<T: Copy + PartialEq>(
        &self,
        kept: &Mutex<Kept<T>>,
        what: &'static str,
        list: &[T],
        make: impl FnOnce() -> Result<Vec<Tensor>>,
    ) -> Result<Vec<Tensor>> {
        if locked(&self.recording).is_some() {
            bail!("an operation of a step sends {what}, which the step does not name")
        }
        locked(kept).get(what, list, make)
    }

    /// The begins and ends of ranges on the device, if there are any.
    pub(super) fn bounds(&self, ranges: &[Range<usize>]) -> Result<Option<Tensor>> {
        if ranges.is_empty() {
            return Ok(None);
        }
        let bounds: Vec<usize> = ranges.iter().flat_map(|range| [range.start, range.end]).collect();
        let send = || {
            let bounds = bounds.iter().copied().map(size).collect::<Vec<_>>();
            Ok(vec![Tensor::new(bounds, &self.device)?])
        };
        Ok(self.kept(&self.bounds, "bounds", &bounds, send)?.pop())
    }

    /// What `make` gives for a list of sequence starts, kept under `what`.
    pub(super) fn of_starts(
        &self,
        what: &'static str,
        starts: &[usize],
        make: impl FnOnce() -> Result<Vec<Tensor>>,
    ) -> Result<Vec<Tensor>> {
        self.kept(&self.places, what, starts, make)
    }

    /// A dropout's mask on the device.
    pub(super) fn mask(
        &self,
        dropout: Option<&dropout::Dropout<'_>>,
        tokens: usize,
    ) -> Result<Option<Mask>> {
        let Some(dropout) = dropout else { return Ok(None) };
        dropout.check(tokens)?;
        let send = || {
            let bits: Vec<i64> =
                dropout.addresses.iter().map(|address| address.cast_signed()).collect();
            Ok(vec![Tensor::new(bits, &self.device)?])
        };
        let addresses = self.kept(&self.wide, "addresses", dropout.addresses, send)?.swap_remove(0);
        Ok(Some(Mask {
            addresses,
            key: dropout.stream.key(),
            step: dropout.step,
            rate: dropout.rate,
            channels: dropout.channels,
        }))
    }
}

/// A dropout whose addresses are on the device.
pub(super) struct Mask {
    addresses: Tensor,
    key: [u32; 2],
    step: u64,
    rate: f64,
    channels: Option<dropout::Channels>,
}

impl Mask {
    pub(super) fn hold(&self) -> Result<Held<'_>> {
        memory::hold(&self.addresses)
    }

    /// As kernels take it, with what [`Mask::hold`] gave.
    pub(super) fn argument<'a>(&self, addresses: &'a Held<'_>) -> Dropout<'a> {
        #[expect(clippy::cast_sign_loss, reason = "a rate in [0, 1)")]
        let threshold = (self.rate * 4_294_967_296.0).ceil() as u64;
        Dropout {
            key: self.key,
            step: self.step,
            threshold,
            addresses: addresses.at(),
            keep: (1.0 / (1.0 - self.rate)) as f32,
            first_channel: self.channels.map_or(0, |channels| channels.first as u32),
            all_channels: self.channels.map_or(0, |channels| channels.all as u32),
        }
    }
}

/// Lists that are the same in every layer are sent once: the last few, found by their content.
struct Kept<T> {
    entries: VecDeque<(&'static str, Vec<T>, Vec<Tensor>)>,
    /// Lists kept.
    most: usize,
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Kept { entries: VecDeque::new(), most: 12 }
    }
}

impl<T: Copy + PartialEq> Kept<T> {
    fn get(
        &mut self,
        what: &'static str,
        list: &[T],
        make: impl FnOnce() -> Result<Vec<Tensor>>,
    ) -> Result<Vec<Tensor>> {
        let found = self.entries.iter().position(|(kind, kept, _)| *kind == what && kept == list);
        if let Some((_, _, tensors)) = found.and_then(|index| self.entries.get(index)) {
            return Ok(tensors.clone());
        }
        let made = make()?;
        if self.entries.len() == self.most {
            self.entries.pop_front();
        }
        self.entries.push_back((what, list.to_vec(), made.clone()));
        Ok(made)
    }
}

/// The C interface's number of a format.
pub(super) fn format(dtype: DType) -> Result<i32> {
    match dtype {
        DType::F32 => Ok(0),
        DType::BF16 => Ok(1),
        DType::F16 => Ok(2),
        other => bail!("GPU kernels compute on f32, bf16 and f16, not on {other:?}"),
    }
}

/// Opens a GPU.
pub(super) fn open(ordinal: usize) -> Result<CudaDevice> {
    memory::open(ordinal)
}
