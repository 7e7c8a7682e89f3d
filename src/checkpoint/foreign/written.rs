//! Tensors of other programs, made of any source's parameters band by band.

use super::form::Form;
use super::reader::bytes;
use super::rectangles::{Composed, Rectangle, Rectangles, extent};
use crate::checkpoint::error::Error;
use crate::checkpoint::source::{Source, to_f32};
use crate::layout::slice::Slice;
use safetensors::Dtype;
use std::collections::BTreeMap;
use std::io::Write;

/// Numbers that are made at a time.
const BAND: usize = 8 << 20;

/// A source's parameters as another program has them.
pub struct Tensors<'a> {
    shapes: BTreeMap<String, Vec<usize>>,
    composed: Composed<Ours<'a>>,
    /// What its numbers are written as.
    pub dtype: Dtype,
}

impl<'a> Tensors<'a> {
    /// The tensors of `form`, made of `source`.
    pub fn new(form: Form, source: &'a dyn Source, dtype: Dtype) -> Tensors<'a> {
        let composed = Composed::new(Ours(source), form.patches);
        Tensors { shapes: form.shapes, composed, dtype }
    }

    /// Names and shapes.
    pub fn shapes(&self) -> &BTreeMap<String, Vec<usize>> {
        &self.shapes
    }

    /// Bytes of a tensor.
    pub fn size(&self, name: &str) -> u64 {
        let numbers: usize = self.shapes.get(name).map_or(0, |shape| shape.iter().product());
        (numbers * self.dtype.bitsize() / 8) as u64
    }

    /// Writes the bytes of a tensor; `done` hears how many at a time.
    pub fn write(
        &self,
        name: &str,
        target: &mut dyn Write,
        done: &mut dyn FnMut(u64),
    ) -> Result<(), Error> {
        let path = self.composed.origin().0.path();
        let [rows, columns] = self.shapes.get(name).map_or([0, 0], |shape| extent(shape));
        let band = (BAND / columns.max(1)).max(1);
        for start in (0..rows).step_by(band) {
            let rectangle =
                Rectangle { rows: start..(start + band).min(rows), columns: 0..columns };
            let mut values = vec![0.0; rectangle.numbers()];
            let read = self.composed.read(name, &rectangle, &mut values);
            read.map_err(|reason| Error::unusable(path, reason))?;
            let bytes = bytes(self.dtype, &values);
            target.write_all(&bytes).map_err(Error::io("write what was made of", path))?;
            done(bytes.len() as u64);
        }
        Ok(())
    }
}

/// The number format for a copy of `source` that loses as little as can be: bf16 stays bf16, all
/// else becomes fp32.
pub fn kept(source: &dyn Source) -> Dtype {
    let all = source.tensors().values().all(|facts| facts.dtype == Dtype::BF16);
    if all { Dtype::BF16 } else { Dtype::F32 }
}

/// Rectangles of a source's parameters.
struct Ours<'a>(&'a dyn Source);

impl Rectangles for Ours<'_> {
    fn read(&self, name: &str, rectangle: &Rectangle, into: &mut [f32]) -> Result<(), String> {
        let lacks = || format!("parameter `{name}` is missing");
        let facts = self.0.tensors().get(name).ok_or_else(lacks)?;
        let [rows, columns] = extent(&facts.shape);
        let (dim, range, across) = if rectangle.rows == (0..rows) && facts.shape.len() > 1 {
            (1, rectangle.columns.clone(), 0..rectangle.columns.len())
        } else {
            (0, rectangle.rows.clone(), rectangle.columns.clone())
        };
        let whole = across == (0..columns) || dim == 1;
        let slice = Slice { dim, ranges: std::iter::once(range).collect(), flat: None };
        let bytes = self.0.read_slice(name, &slice).map_err(|error| error.to_string())?;
        let values = to_f32(facts.dtype, &bytes).ok_or_else(lacks)?;
        if whole {
            into.copy_from_slice(&values);
            return Ok(());
        }
        let lines = values.chunks_exact(columns).zip(into.chunks_exact_mut(across.len()));
        for (line, into) in lines {
            into.copy_from_slice(&line[across.clone()]);
        }
        Ok(())
    }
}
