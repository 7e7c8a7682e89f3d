//! Activation memory as it is: bytes that forward passes keep for their backward, counted while they
//! are held, to compare with what `layout::memory` predicts.

use candle_core::Tensor;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts what is held, and the most that ever was.
#[derive(Clone, Debug, Default)]
pub struct ActivationMeter(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    now: AtomicU64,
    peak: AtomicU64,
}

impl ActivationMeter {
    /// Counts these tensors until the answer is dropped; one that is named twice counts once.
    pub fn hold<'a>(&self, tensors: impl IntoIterator<Item = &'a Tensor>) -> Held {
        let (mut seen, mut bytes) = (Vec::new(), 0);
        for tensor in tensors {
            if !seen.contains(&tensor.id()) {
                seen.push(tensor.id());
                bytes += size(tensor);
            }
        }
        let now = self.0.now.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.0.peak.fetch_max(now, Ordering::Relaxed);
        Held { meter: self.clone(), bytes }
    }

    /// Bytes held now.
    pub fn now(&self) -> u64 {
        self.0.now.load(Ordering::Relaxed)
    }

    /// The most bytes ever held at once.
    pub fn peak(&self) -> u64 {
        self.0.peak.load(Ordering::Relaxed)
    }
}

/// Something counted; it stops counting when it is dropped.
#[derive(Debug)]
pub struct Held {
    meter: ActivationMeter,
    bytes: u64,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.meter.0.now.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

fn size(tensor: &Tensor) -> u64 {
    (tensor.elem_count() * tensor.dtype().size_in_bytes()) as u64
}
