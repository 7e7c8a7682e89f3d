//! Tensors by our names, read slice by slice: what every format's reader gives.

use super::error::Error;
use crate::layout::parameters::{Parameter, is_vocabulary};
use crate::layout::slice::Slice;
use half::{bf16, f16};
use safetensors::Dtype;
use std::collections::BTreeMap;
use std::path::Path;

/// Shape and number format of a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorFacts {
    /// Its shape as a whole.
    pub shape: Vec<usize>,
    /// Its number format: F32, F16 or BF16.
    pub dtype: Dtype,
}

/// A checkpoint that can be read in parts.
///
/// Names and layouts are those of [`crate::layout::parameters`] (optimizer state with the prefixes
/// of [`super::manifest::Kind`]), whatever the file's own are. The vocabulary may have padding rows.
pub trait Source: Sync {
    /// Where it lies, for messages.
    fn path(&self) -> &Path;

    /// Its tensors.
    fn tensors(&self) -> &BTreeMap<String, TensorFacts>;

    /// The bytes of a part of a tensor: little-endian, row-major, in the tensor's number format.
    ///
    /// `slice` is in terms of the tensor's shape in [`tensors`](Source::tensors) and fits it.
    fn read_slice(&self, name: &str, slice: &Slice) -> Result<Vec<u8>, Error>;
}

/// The bytes of a part of the tensor `name`, which belongs to `parameter`; `slice` is in terms of
/// the parameter's shape, padding included.
///
/// Padding rows of the vocabulary are read as zeros, whatever the source has there.
pub fn read_padded(
    source: &dyn Source,
    name: &str,
    parameter: &Parameter,
    slice: &Slice,
) -> Result<(Dtype, Vec<u8>), Error> {
    let facts = facts(source, name, parameter)?;
    let stored = slice.first_rows(parameter.stored_shape()[0], &parameter.shape);
    let mut bytes =
        if stored.ranges.is_empty() { Vec::new() } else { source.read_slice(name, &stored)? };
    let elements = slice.element_count(&parameter.shape);
    bytes.resize(elements * facts.dtype.bitsize() / 8, 0);
    Ok((facts.dtype, bytes))
}

/// What the source says of tensor `name`, held against its parameter.
pub fn facts<'a>(
    source: &'a dyn Source,
    name: &str,
    parameter: &Parameter,
) -> Result<&'a TensorFacts, Error> {
    let tensors = source.tensors();
    let missing = || Error::unusable(source.path(), format!("tensor `{name}` is missing"));
    let facts = tensors.get(name).ok_or_else(missing)?;
    let (found, stored) = (&facts.shape, parameter.stored_shape());
    // Rows beyond the vocabulary are padding: any number of them.
    let padded = is_vocabulary(&parameter.name) && found.first() > stored.first();
    if *found == stored || (padded && found.get(1..) == stored.get(1..)) {
        return Ok(facts);
    }
    let reason = format!("tensor `{name}` has shape {found:?}, the model needs {stored:?}");
    Err(Error::unusable(source.path(), reason))
}

/// [`read_padded`] as f32 values.
pub fn read_f32(
    source: &dyn Source,
    name: &str,
    parameter: &Parameter,
    slice: &Slice,
) -> Result<Vec<f32>, Error> {
    let (dtype, bytes) = read_padded(source, name, parameter, slice)?;
    to_f32(dtype, &bytes).ok_or_else(|| {
        let reason = format!("tensor `{name}` is {dtype:?}, which is not read");
        Error::unusable(source.path(), reason)
    })
}

/// The values of little-endian `bytes`; none for formats other than F32, F16 and BF16.
pub fn to_f32(dtype: Dtype, bytes: &[u8]) -> Option<Vec<f32>> {
    let pairs = || bytes.as_chunks::<2>().0.iter();
    match dtype {
        Dtype::F32 => {
            Some(bytes.as_chunks::<4>().0.iter().map(|four| f32::from_le_bytes(*four)).collect())
        }
        Dtype::F16 => Some(pairs().map(|two| f16::from_le_bytes(*two).to_f32()).collect()),
        Dtype::BF16 => Some(pairs().map(|two| bf16::from_le_bytes(*two).to_f32()).collect()),
        _ => None,
    }
}
