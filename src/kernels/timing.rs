//! Where the time of a GPU goes: each operation's kernels between two events of its stream.

use super::Result;
use candle_core::Device;
use std::cell::Cell;

/// Kinds of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Matrix products, with the activations that are taken in them.
    Products,
    /// Attention.
    Attention,
    /// Norms with the residual sums before them and the gradients of biases beside them.
    Norms,
    /// Activations with the biases before them, where they are by themselves.
    Activation,
    /// The output layer, its norm, the loss.
    Head,
    /// The embedding and its gradient.
    Embedding,
    /// The optimizer's step.
    Optimizer,
    /// The gradient's norm.
    GradientNorm,
    /// Waiting for other ranks, and exchanging with them where nothing is computed meanwhile.
    Communication,
    /// Sums of rows, casts, clearing, rotary positions, dropout.
    Other,
}

impl Part {
    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Part::Products => "products",
            Part::Attention => "attention",
            Part::Norms => "norms",
            Part::Activation => "activation",
            Part::Head => "head",
            Part::Embedding => "embedding",
            Part::Optimizer => "optimizer",
            Part::GradientNorm => "gradient norm",
            Part::Communication => "communication",
            Part::Other => "other",
        }
    }
}

thread_local! {
    static SECTION: Cell<Option<Part>> = const { Cell::new(None) };
}

/// While it is there, all work of this thread counts as one part.
#[derive(Debug)]
pub struct Section(Option<Part>);

/// Counts the work of this thread as `part` until the answer is dropped.
#[must_use]
pub fn section(part: Part) -> Section {
    Section(SECTION.replace(Some(part)))
}

impl Drop for Section {
    fn drop(&mut self) {
        SECTION.set(self.0);
    }
}

/// What the operation of kind `part` counts as.
#[cfg(feature = "cuda")]
pub(super) fn counted_as(part: Part) -> Part {
    let section = SECTION.get().filter(|_| part != Part::Communication);
    section.unwrap_or(part)
}

/// Does `work`, by which the stream of `device`'s kernels waits for other ranks.
#[cfg(feature = "cuda")]
pub fn communication<R>(device: &Device, work: impl FnOnce() -> Result<R>) -> Result<R> {
    super::cuda::communication(device, work)
}

/// Seconds of a GPU's stream by what it did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Times {
    /// In the order of [`Part`].
    pub parts: Vec<(Part, f64)>,
    /// Between operations: the stream waited for the next one, or did what is not timed.
    pub idle: f64,
}

/// Times what is started on `device` from now on; nothing happens on a CPU.
pub fn begin(device: &Device) -> Result<()> {
    #[cfg(feature = "cuda")]
    if device.is_cuda() {
        return super::cuda::begin_timing(device);
    }
    let _ = device;
    Ok(())
}

/// Waits for the device, and gives what it did since [`begin`]; none on a CPU.
pub fn end(device: &Device) -> Result<Option<Times>> {
    #[cfg(feature = "cuda")]
    if device.is_cuda() {
        return super::cuda::end_timing(device).map(Some);
    }
    let _ = device;
    Ok(None)
}
