//! The model's parameters and their gradients, each set in one flat buffer in the table's order.

use super::formats::Formats;
use crate::kernels::reduce;
use crate::layout::parameters::{Parameter, table};
use crate::spec::architecture::Architecture;
use candle_core::{Device, Result, Tensor, WithDType};
use rayon::prelude::*;
use std::ops::Range;

/// Parameters and gradients.
///
/// Layers hold views into the buffers: a change in place is seen by both.
#[derive(Debug)]
pub struct Weights {
    table: Vec<Parameter>,
    /// Where each parameter of the table lies in the buffers.
    ranges: Vec<Range<usize>>,
    formats: Formats,
    /// All values, `[elements]`.
    values: Tensor,
    /// The values in the format of matrix products, when it is another one.
    product_values: Option<Tensor>,
    /// All gradients, `[elements]`.
    gradients: Tensor,
}

/// One parameter of a layer: views into the flat buffers.
#[derive(Clone, Debug)]
pub struct Slot {
    /// The values.
    pub value: Tensor,
    /// The gradient, which backward passes add to.
    pub gradient: Tensor,
}

impl Weights {
    /// Parameters with these values, which follow each other in the table's order; everything is
    /// in their format and on the CPU.
    pub fn new<T: WithDType>(architecture: &Architecture, values: Vec<T>) -> Result<Weights> {
        let count = values.len();
        let values = Tensor::from_vec(values, count, &Device::Cpu)?;
        Weights::placed(architecture, &values, Formats::uniform(T::DTYPE), &Device::Cpu)
    }

    /// Parameters on `device` in `formats`, with `values` `[elements]` in the table's order.
    ///
    /// Values that are there already in the right format are shared, not copied.
    pub fn placed(
        architecture: &Architecture,
        values: &Tensor,
        formats: Formats,
        device: &Device,
    ) -> Result<Weights> {
        let table = table(architecture);
        let ranges = ranges(&table);
        let elements = ranges.last().map_or(0, |range| range.end);
        if values.dims() != [elements] {
            candle_core::bail!("values {:?} for {elements} parameters", values.dims());
        }
        let placed = |dtype| values.to_dtype(dtype)?.to_device(device);
        let casts = formats.products != formats.parameters;
        Ok(Weights {
            table,
            ranges,
            formats,
            values: placed(formats.parameters)?,
            product_values: if casts { Some(placed(formats.products)?) } else { None },
            gradients: Tensor::zeros(elements, formats.gradients(), device)?,
        })
    }

    /// The views of the parameter called `name`; none when the architecture has no such parameter.
    pub fn slot(&self, name: &str) -> Result<Option<Slot>> {
        self.slot_of(&self.values, name)
    }

    /// [`expect`](Weights::expect) with the values in the format of matrix products.
    pub fn expect_for_products(&self, name: &str) -> Result<Slot> {
        let values = self.product_values.as_ref().unwrap_or(&self.values);
        self.slot_of(values, name)?.ok_or_else(|| missing(name))
    }

    fn slot_of(&self, values: &Tensor, name: &str) -> Result<Option<Slot>> {
        let Some(index) = self.table.iter().position(|parameter| parameter.name == name) else {
            return Ok(None);
        };
        let view = |buffer: &Tensor| {
            let range = &self.ranges[index];
            buffer.narrow(0, range.start, range.len())?.reshape(self.table[index].shape.as_slice())
        };
        Ok(Some(Slot { value: view(values)?, gradient: view(&self.gradients)? }))
    }

    /// [`slot`](Weights::slot) of a parameter that the architecture must have.
    pub fn expect(&self, name: &str) -> Result<Slot> {
        self.slot(name)?.ok_or_else(|| missing(name))
    }

    /// The parameters with their ranges in the flat buffers.
    pub fn parameters(&self) -> impl Iterator<Item = (&Parameter, Range<usize>)> {
        self.table.iter().zip(self.ranges.iter().cloned())
    }

    /// All values, `[elements]`.
    pub fn values(&self) -> &Tensor {
        &self.values
    }

    /// All gradients, `[elements]`.
    pub fn gradients(&self) -> &Tensor {
        &self.gradients
    }

    /// Sets every gradient to zero.
    pub fn zero_gradients(&self) -> Result<()> {
        self.gradients.zero_set()
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

fn ranges(table: &[Parameter]) -> Vec<Range<usize>> {
    let mut end = 0;
    let range = |parameter: &Parameter| {
        let start = end;
        end += parameter.element_count();
        start..end
    };
    table.iter().map(range).collect()
}
