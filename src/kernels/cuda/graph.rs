//! CUDA graphs of steps that differ in lists of indices only.
//!
//! Lists lie in one tensor to which each step's are copied, and every tensor that the first run made is
//! kept and given out again while the second is captured: so a graph has kernels alone, at addresses
//! that stay.

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
    /// What its operations made, in their order, once it ran.
    made: Vec<Tensor>,
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
        if step.made.is_empty() {
            let (output, recording) = context.recorded(step.recording(lists, None)?, work);
            let output = output?;
            step.made = recording.made;
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
            self.steps.truncate(MOST - 1);
            let words = context.unfilled(laid_out(lists).len(), DType::U32)?;
            Step { lengths, words, made: Vec::new(), graph: None }
        };
        self.steps.push_front(step);
        Ok(&mut self.steps[0])
    }
}

impl Step {
    fn recording(&self, lists: &[&[u32]], made: Option<&[Tensor]>) -> Result<Recording> {
        let mut from = 0;
        let mut placed = Vec::with_capacity(lists.len());
        for list in lists {
            placed.push((name(list), self.words.narrow(0, from, list.len())?));
            from += list.len().next_multiple_of(ALIGNED);
        }
        let given = made.map(|_| 0);
        Ok(Recording { lists: placed, made: made.unwrap_or_default().to_vec(), given })
    }

    /// The kernels that `work` starts, none of which runs yet.
    fn captured(
        &self,
        context: &Context,
        cuda: &CudaDevice,
        lists: &[&[u32]],
        work: impl FnOnce() -> Result<Tensor>,
    ) -> Result<Graph> {
        let (stream, recording) = (cuda.cuda_stream(), self.recording(lists, Some(&self.made))?);
        // Other threads may allocate meanwhile.
        let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        stream.begin_capture(mode).map_err(Error::wrap)?;
        let (output, recording) = context.recorded(recording, work);
        // Also after a failure, so that the stream works again.
        let kernels = stream.end_capture(CUgraphInstantiate_flags(0));
        let (output, kernels) = (output?, kernels.map_err(Error::wrap)?);
        match kernels {
            Some(kernels) if recording.given == Some(self.made.len()) => {
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
    made: Vec<Tensor>,
    /// While it is captured: how many of those made before were given out again.
    given: Option<usize>,
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
        let Some(given) = &mut self.given else {
            let tensor = memory::unfilled(shape, dtype, device)?;
            self.made.push(tensor.clone());
            return Ok(tensor);
        };
        let same = self.made.get(*given);
        match same.filter(|made| *made.shape() == shape && made.dtype() == dtype) {
            Some(made) => {
                *given += 1;
                Ok(made.clone())
            }
            None => bail!("a step makes {shape:?} where it made {same:?} before"),
        }
    }
}
