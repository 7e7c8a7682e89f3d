//! Events before and after each operation, while somebody measures.

use super::context::{Context, locked};
use super::ffi::Stream;
use crate::kernels::Result;
use crate::kernels::timing::{Part, Times, counted_as};
use candle_core::Device;
use candle_core::cuda_backend::cudarc::driver::CudaEvent;
use candle_core::cuda_backend::cudarc::driver::sys::CUevent_flags;
use std::collections::BTreeMap;

/// What was timed since the measurement began, in the order of the stream.
pub(super) type Spans = Vec<(Part, [CudaEvent; 2])>;

/// An operation that is being started; it ends when this is dropped.
pub(super) struct Work<'a> {
    context: &'a Context,
    stream: Stream,
    begun: Option<(Part, CudaEvent)>,
}

impl Work<'_> {
    /// The stream to start its kernels in.
    pub(super) fn stream(&self) -> Stream {
        self.stream
    }
}

impl Drop for Work<'_> {
    fn drop(&mut self) {
        let Some((part, start)) = self.begun.take() else { return };
        // A measurement without this operation is better than none of the run.
        let Ok(end) = event(self.context) else { return };
        if let Some(spans) = locked(&self.context.spans).as_mut() {
            spans.push((part, [start, end]));
        }
    }
}

impl Context {
    /// Begins an operation of kind `part`.
    pub(super) fn work(&self, part: Part) -> Result<Work<'_>> {
        let stream = self.stream()?;
        let begun = if self.is_timed() { Some((counted_as(part), event(self)?)) } else { None };
        Ok(Work { context: self, stream, begun })
    }

    /// Whether somebody measures.
    pub(super) fn is_timed(&self) -> bool {
        locked(&self.spans).is_some()
    }

    pub(super) fn begin_timing(&self) {
        *locked(&self.spans) = Some(Vec::new());
    }

    pub(super) fn end_timing(&self) -> Result<Times> {
        self.device().synchronize()?;
        let spans = locked(&self.spans).take().unwrap_or_default();
        let (mut parts, mut idle) = (BTreeMap::<Part, f64>::new(), 0.0);
        for (part, events) in &spans {
            *parts.entry(*part).or_default() += between(&events[0], &events[1])?;
        }
        for pair in spans.windows(2) {
            idle += between(&pair[0].1[1], &pair[1].1[0])?;
        }
        Ok(Times { parts: parts.into_iter().collect(), idle })
    }
}

fn event(context: &Context) -> Result<CudaEvent> {
    let Device::Cuda(cuda) = context.device() else { candle_core::bail!("not on a GPU") };
    let event = cuda.cuda_stream().record_event(Some(CUevent_flags::CU_EVENT_DEFAULT));
    event.map_err(candle_core::Error::wrap)
}

fn between(start: &CudaEvent, end: &CudaEvent) -> Result<f64> {
    let milliseconds = start.elapsed_ms(end).map_err(candle_core::Error::wrap)?;
    Ok(f64::from(milliseconds) / 1e3)
}
