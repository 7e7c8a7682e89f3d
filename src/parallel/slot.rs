//! A parameter as a layer holds it.

use candle_core::Tensor;

/// What one rank holds of a parameter: views into its flat buffers.
#[derive(Clone, Debug)]
pub struct Slot {
    /// The values.
    pub value: Tensor,
    /// The gradient, which backward passes add to.
    pub gradient: Tensor,
}
