//! CUDA graphs of steps that differ in lists of indices only.
//!
//! Lists lie in one tensor to which each step's are copied, and every tensor that the first run made is
//! kept and given out again while the second is captured: so a graph has kernels alone, at addresses
//! that stay. Steps of other lists take the same memory as far as it is large enough: one runs at a
//! time, and what it gives is good until the next. So what is kept is one token's activations of each
//! row, of all layers: as much as a hundred tokens or less of the rows' keys and values take.

use super::context::{Context, of_device};
use super::memory;
use crate::kernels::Result;
use candle_core::cuda_backend::cudarc::driver::CudaGraph;
use candle_core::cuda_backend::cudarc::driver::sys::{
    CUgraphInstantiate_flags, CUstreamCaptureMode,
};
use candle_core::{CudaDevice, DType, Device, Error, Shape, Tensor, bail};
use std::collections::VecDeque;
use std::fmt;

/// Steps that are kept: rows that end one after the other need few at a time.
const MOST: usize = 4;

/// Each list begins at a multiple of so many words.
const ALIGNED: usize = 64;

/// Steps as they ran.
#[derive(Debug, Default)]
pub(in crate::kernels) struct Captured {
    steps: VecDeque<Step>,
}

/// A step with lists of certain lengths.
#[derive(Debug)]
struct Step {
    lengths: Vec<usize>,
    /// The lists, one behind the other.
    words: Tensor,
    /// What its operations made, in their order; before it ran, what those of the largest step made.
    made: Vec<Tensor>,
    has_run: bool,
    /// Once it ran twice.
    graph: Option<Graph>,
}

/// The kernels of a step, and where they leave what it gives.
struct Graph {
    kernels: CudaGraph,
    output: Tensor,
}

impl fmt::Debug for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Graph").field("output", &self.output).finish_non_exhaustive()
    }
}

impl Captured {
    /// [`Graphs::run`](crate::kernels::graph::Graphs::run) on a GPU: the first time as it comes, the
    /// second time captured, and from then on by a launch.
    pub(in crate::kernels) fn run(
        &mut self,
        device: &Device,
        lists: &[&[u32]],
        work: impl FnOnce() -> Result<Tensor>,
    ) -> Result<Tensor> {
        let (context, Device::Cuda(cuda)) = (of_device(device)?, device) else {
            bail!("not on a GPU")
        };
        // The events of a measurement would be captured too.
        if context.is_timed() {
            return work();
        }
        let step = self.step(&context, lists)?;
        memory::send(&laid_out(lists), &step.words)?;
        if !step.has_run {
            let recording = step.recording(lists, Memory::Of(step.made.clone()))?;
            let (output, recording) = context.recorded(recording, work);
            let output = output?;
            (step.made, step.has_run) = (recording.made, true);
            return Ok(output);
        }
        if step.graph.is_none() {
            step.graph = Some(step.captured(&context, cuda, lists, work)?);
        }
        let Some(Graph { kernels, output }) = &step.graph else { bail!("no graph was captured") };
        kernels.launch().map_err(Error::wrap)?;
        Ok(output.clone())
    }

    /// The step with lists of these lengths; a new one takes the place of the one that ran least
    /// lately, where there are enough.
    fn step(&mut self, context: &Context, lists: &[&[u32]]) -> Result<&mut Step> {
        let lengths: Vec<usize> = lists.iter().map(|list| list.len()).collect();
        let found = self.steps.iter().position(|step| step.lengths == lengths);
        let step = if let Some(step) = found.and_then(|index| self.steps.remove(index)) {
            step
        } else {
            let largest = self.steps.iter().max_by_key(|step| step.lengths.first());
            let made = largest.map_or_else(Vec::new, |step| step.made.clone());
            self.steps.truncate(MOST - 1);
            let words = context.unfilled(laid_out(lists).len(), DType::U32)?;
            Step { lengths, words, made, has_run: false, graph: None }
        };
        self.steps.push_front(step);
        Ok(&mut self.steps[0])
    }
}

impl Step {
    fn recording(&self, lists: &[&[u32]], memory: Memory) -> Result<Recording> {
        let mut from = 0;
        let mut placed = Vec::with_capacity(lists.len());
        for list in lists {
            placed.push((name(list), self.words.narrow(0, from, list.len())?));
            from += list.len().next_multiple_of(ALIGNED);
        }
        Ok(Recording { lists: placed, memory, made: Vec::new() })
    }

    /// The kernels that `work` starts, none of which runs yet.
    fn captured(
        &self,
        context: &Context,
        cuda: &CudaDevice,
        lists: &[&[u32]],
        work: impl FnOnce() -> Result<Tensor>,
    ) -> Result<Graph> {
        let recording = self.recording(lists, Memory::Only(self.made.clone()))?;
        let stream = cuda.cuda_stream();
        // Other threads may allocate meanwhile.
        let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        stream.begin_capture(mode).map_err(Error::wrap)?;
        let (output, recording) = context.recorded(recording, work);
        // Also after a failure, so that the stream works again.
        let kernels = stream.end_capture(CUgraphInstantiate_flags(0));
        let (output, kernels) = (output?, kernels.map_err(Error::wrap)?);
        match kernels {
            Some(kernels) if recording.made.len() == self.made.len() => {
                Ok(Graph { kernels, output })
            }
            _ => bail!("a step made {} tensors, and others when it ran again", self.made.len()),
        }
    }
}

/// The lists one behind the other, each at a multiple of [`ALIGNED`] words.
fn laid_out(lists: &[&[u32]]) -> Vec<u32> {
    let mut words = Vec::new();
    for list in lists {
        words.extend_from_slice(list);
        words.resize(words.len().next_multiple_of(ALIGNED), 0);
    }
    words
}

/// A list by where it is on the host: two may have the same numbers once.
fn name(list: &[u32]) -> (usize, usize) {
    (list.as_ptr().addr(), list.len())
}

/// What the operations of a step use in place of what they would send and allocate while it runs for
/// the first time, or is captured.
#[derive(Debug, Default)]
pub(super) struct Recording {
    lists: Vec<((usize, usize), Tensor)>,
    memory: Memory,
    /// What was made so far.
    made: Vec<Tensor>,
}

/// Where the tensors that a step makes lie: each where that of its number lay in another run.
#[derive(Debug)]
enum Memory {
    /// There where they are not larger, elsewhere otherwise.
    Of(Vec<Tensor>),
    /// There only: nothing may be allocated.
    Only(Vec<Tensor>),
}

impl Default for Memory {
    fn default() -> Self {
        Memory::Of(Vec::new())
    }
}

impl Recording {
    /// A list of the step on the device.
    pub(super) fn words(&self, list: &[u32]) -> Result<Tensor> {
        match self.lists.iter().find(|(known, _)| *known == name(list)) {
            Some((_, words)) => Ok(words.clone()),
            None => bail!("an operation of a step sends a list that the step does not name"),
        }
    }

    /// A tensor to be written whole by a kernel.
    pub(super) fn unfilled(
        &mut self,
        shape: Shape,
        dtype: DType,
        device: &Device,
    ) -> Result<Tensor> {
        let (Memory::Of(kept) | Memory::Only(kept)) = &self.memory;
        let kept = kept.get(self.made.len());
        let fits =
            |kept: &&Tensor| kept.dtype() == dtype && kept.elem_count() >= shape.elem_count();
        let tensor = match (kept.filter(fits), &self.memory) {
            (Some(kept), _) => {
                kept.flatten_all()?.narrow(0, 0, shape.elem_count())?.reshape(shape)?
            }
            (None, Memory::Of(_)) => memory::unfilled(shape, dtype, device)?,
            (None, Memory::Only(_)) => {
                bail!("a step makes {shape:?} where it made {kept:?} before")
            }
        };
        self.made.push(tensor.clone());
        Ok(tensor)
    }
}
