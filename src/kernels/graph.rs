//! Steps that differ in lists of indices only: on a GPU each is captured as a CUDA graph and launched
//! whole.
//!
//! A step of decoding starts hundreds of small kernels, and what the host does to start them takes
//! longer than the kernels; a graph is started by one call.

use super::Result;
use candle_core::{Device, Tensor};

/// The steps that were taken, by the lengths of their lists.
#[derive(Debug, Default)]
pub struct Graphs {
    #[cfg(feature = "cuda")]
    captured: super::cuda::graph::Captured,
}

impl Graphs {
    /// What `work` gives, good until the next run.
    ///
    /// `work` hands operations these very `lists` and no others. Their lengths decide which kernels of
    /// this room it starts, nothing else, and what it allocates; the first list has an entry for each
    /// row. It reads no number back, and uses tensors that stay where they are for as long as these
    /// graphs are kept. Where it ran with such lists before, a GPU may do the same again with these
    /// without `work` being called; a CPU always calls it.
    pub fn run(
        &mut self,
        device: &Device,
        lists: &[&[u32]],
        work: impl FnOnce() -> Result<Tensor>,
    ) -> Result<Tensor> {
        #[cfg(feature = "cuda")]
        if device.is_cuda() {
            return self.captured.run(device, lists, work);
        }
        let _ = (device, lists);
        work()
    }
}
