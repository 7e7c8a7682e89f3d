//! The model's parameters and their gradients, each set in one flat buffer in the table's order.

use super::formats::Formats;
use crate::kernels::{masters, reduce};
use crate::layout::holding::{Holding, Part};
use crate::layout::parameters::{Parameter, Role, table};
pub use crate::parallel::parameter_view::ParameterView;
use crate::spec::architecture::Architecture;
use candle_core::{Device, Result, Tensor, WithDType};
use rayon::prelude::*;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Parameters and gradients.
///
/// Layers hold views into the buffers: a change in place is seen by both, and by every clone.
#[derive(Clone, Debug)]
pub struct Weights {
    /// What lies where in the buffers.
    holding: Holding,
    formats: Formats,
    /// All values, `[length]`.
    values: Tensor,
    /// The values in the format of matrix products, when it is another one.
    product_values: Option<Tensor>,
    /// All gradients, `[length]`.
    gradients: Tensor,
    /// Of each part of the holding, whether its gradient is still that of an earlier step.
    empty: Vec<Arc<AtomicBool>>,
}

impl Weights {
    /// All parameters with these values, which follow each other in the table's order; everything is
    /// in their format and on the CPU.
    pub fn new<T: WithDType>(architecture: &Architecture, values: Vec<T>) -> Result<Weights> {
        let count = values.len();
        let values = Tensor::from_vec(values, count, &Device::Cpu)?;
        Weights::placed(architecture, &values, Formats::uniform(T::DTYPE), &Device::Cpu)
    }

    /// All parameters on `device` in `formats`, with `values` `[elements]` in the table's order.
    ///
    /// Values that are there already in the right format are shared, not copied.
    pub fn placed(
        architecture: &Architecture,
        values: &Tensor,
        formats: Formats,
        device: &Device,
    ) -> Result<Weights> {
        Weights::held(Holding::single(architecture), values, formats, device)
    }

    /// What one rank holds, with `values` `[length]` as they lie in its buffers, rounded as
    /// [`masters::rounded`] does.
    pub fn held(
        holding: Holding,
        values: &Tensor,
        formats: Formats,
        device: &Device,
    ) -> Result<Weights> {
        let length = holding.length();
        if values.dims() != [length] {
            candle_core::bail!("values {:?} for {length} parameters", values.dims());
        }
        let casts = formats.products != formats.parameters;
        let products = casts.then(|| values.to_dtype(formats.products)?.to_device(device));
        Ok(Weights {
            empty: holding.parts().iter().map(|_| Arc::default()).collect(),
            holding,
            formats,
            values: masters::rounded(values, formats.parameters)?.to_device(device)?,
            product_values: products.transpose()?,
            gradients: Tensor::zeros(length, formats.gradients(), device)?,
        })
    }

    /// The views of the parameter called `name`; none when the architecture has no such parameter.
    pub fn view(&self, name: &str) -> Result<Option<ParameterView>> {
        self.view_of(&self.values, name)
    }

    /// [`expect`](Weights::expect) with the values in the format of matrix products.
    pub fn expect_for_products(&self, name: &str) -> Result<ParameterView> {
        let values = self.product_values.as_ref().unwrap_or(&self.values);
        self.view_of(values, name)?.ok_or_else(|| missing(name))
    }

    fn view_of(&self, values: &Tensor, name: &str) -> Result<Option<ParameterView>> {
        let mut parts = self.holding.parts().iter().zip(&self.empty);
        let Some((part, empty)) = parts.find(|(part, _)| part.parameter.name == name) else {
            return Ok(None);
        };
        let narrowed = |buffer: &Tensor| {
            let range = &part.range;
            buffer.narrow(0, range.start, range.len())?.reshape(part.shape.as_slice())
        };
        Ok(Some(ParameterView::new(
            narrowed(values)?,
            narrowed(&self.gradients)?,
            empty.clone(),
            part.learns,
        )))
    }

    /// [`view`](Weights::view) of a parameter that the architecture must have.
    pub fn expect(&self, name: &str) -> Result<ParameterView> {
        self.view(name)?.ok_or_else(|| missing(name))
    }

    /// What lies where in the flat buffers.
    pub fn holding(&self) -> &Holding {
        &self.holding
    }

    /// The parameters with their ranges in the flat buffers.
    pub fn parameters(&self) -> impl Iterator<Item = (&Parameter, Range<usize>)> {
        let pair = |part: &'_ Part| part.range.clone();
        self.holding.parts().iter().map(move |part| (&part.parameter, pair(part)))
    }

    /// All values, `[elements]`.
    pub fn values(&self) -> &Tensor {
        &self.values
    }

    /// All gradients, `[elements]`.
    pub fn gradients(&self) -> &Tensor {
        &self.gradients
    }

    /// Begins a step: what backward passes add is a new sum. Those of norms and biases are cleared
    /// together; the memory of the others is written when the first pass adds, see
    /// [`complete_gradients`](Weights::complete_gradients).
    pub fn begin_gradients(&self) -> Result<()> {
        let mut short = Vec::new();
        for (part, empty) in self.holding.parts().iter().zip(&self.empty) {
            let is_short = part.parameter.role != Role::Weight;
            if is_short {
                short.push(part.range.clone());
            }
            empty.store(!is_short, Ordering::Relaxed);
        }
        reduce::clear_ranges(&self.gradients, &short)
    }

    /// Ends a step's backward passes: gradients to which none of them added are zeros, but for those of
    /// frozen parameters, which mean nothing.
    pub fn complete_gradients(&self) -> Result<()> {
        for (part, empty) in self.holding.parts().iter().zip(&self.empty) {
            if empty.swap(false, Ordering::Relaxed) && part.learns {
                let range = &part.range;
                reduce::clear(&self.gradients.narrow(0, range.start, range.len())?)?;
            }
        }
        Ok(())
    }

    /// To be called after [`values`](Weights::values) were changed.
    pub fn values_changed(&self) -> Result<()> {
        match &self.product_values {
            Some(copy) => reduce::put(copy, &self.values),
            None => Ok(()),
        }
    }

    /// Number formats.
    pub fn formats(&self) -> Formats {
        self.formats
    }

    /// Where the parameters are.
    pub fn device(&self) -> &Device {
        self.values.device()
    }
}

fn missing(name: &str) -> candle_core::Error {
    candle_core::Error::Msg(format!("the table has no parameter `{name}`"))
}

/// Start values of all parameters in the table's order (see [`crate::layout::parameters`]).
pub fn start_values<T: WithDType>(architecture: &Architecture, seed: u64) -> Vec<T> {
    let mut values = Vec::new();
    for parameter in table(architecture) {
        let stream = parameter.start_stream(seed);
        let value = |index| T::from_f64(parameter.start_value(&stream, index));
        values.par_extend((0..parameter.element_count()).into_par_iter().map(value));
    }
    values
}
