//! A parameter as a layer holds it: views of its values and of its gradient.

use crate::kernels::linear::{self, Onto};
use crate::kernels::reduce;
use candle_core::{Result, Tensor};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What one rank holds of a parameter: views into its flat buffers.
///
/// All views of one parameter know together whether its gradient is empty.
#[derive(Clone, Debug)]
pub struct ParameterView {
    /// The values.
    pub value: Tensor,
    /// The gradient, which backward passes add to; see [`ParameterView::gradient`].
    gradient: Tensor,
    /// Whether the gradient's memory holds what an earlier step left.
    empty: Arc<AtomicBool>,
    /// Whether anybody wants the gradient: a frozen parameter's is not computed where that saves a
    /// product.
    pub learns: bool,
}

impl ParameterView {
    /// A parameter with its gradient; `empty` says whether the gradient's numbers mean nothing yet,
    /// `learns` whether it is wanted.
    pub fn new(
        value: Tensor,
        gradient: Tensor,
        empty: Arc<AtomicBool>,
        learns: bool,
    ) -> ParameterView {
        ParameterView { value, gradient, empty, learns }
    }

    /// The gradient, to be added to; zeros if nothing was added in this step.
    pub fn gradient(&self) -> Result<&Tensor> {
        if self.empty.swap(false, Ordering::Relaxed) {
            reduce::clear(&self.gradient)?;
        }
        Ok(&self.gradient)
    }

    /// Adds `dyᵀ·x` to the gradient; the first product of a step is put there, so that nobody has
    /// to write zeros and read them again.
    pub fn accumulate_product(&self, dy: &Tensor, x: &Tensor) -> Result<()> {
        if !self.learns {
            return Ok(());
        }
        let empty = self.empty.swap(false, Ordering::Relaxed);
        let onto = if empty { Onto::Nothing } else { Onto::Sum };
        linear::backward_weight(dy, x, &self.gradient, onto)
    }
}
