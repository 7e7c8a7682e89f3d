//! What one rank reads and copies of a checkpoint: the pieces that it holds.

use super::error::Error;
use super::manifest::Kind;
use super::snapshot::FileSnapshot;
use super::source::{Source, read_f32};
use super::writer::PieceSpec;
use crate::layout::holding::{Holding, Part};
use crate::layout::slice::Slice;
use candle_core::Tensor;
use safetensors::Dtype;
use std::fmt;
use std::ops::Range;

/// Elements `owned` of the buffer of `kind` that a rank with `holding` has, end to end; padding is
/// zeros.
pub fn read(
    source: &dyn Source,
    kind: Kind,
    holding: &Holding,
    owned: &[Range<usize>],
) -> Result<Vec<f32>, Error> {
    let mut values = Vec::with_capacity(owned.iter().map(Range::len).sum());
    let mut end = 0;
    for range in owned {
        end += range.len();
        for part in holding.parts() {
            let Some(here) = inside(part, range) else { continue };
            let whole = here.len() == part.range.len();
            let slice = if whole { part.slice.clone() } else { part.slice.clone().elements(here) };
            let name = kind.name(&part.parameter.name);
            values.extend(read_f32(source, &name, &part.parameter, &slice)?);
        }
        values.resize(end, 0.0);
    }
    Ok(values)
}

/// Numbers that lie end to end, or are made when they are asked for.
pub trait Numbers: fmt::Debug {
    /// A copy of those of `range`, in fp32.
    fn on_host(&self, range: &Range<usize>) -> Result<Vec<f32>, candle_core::Error>;
}

impl Numbers for Tensor {
    /// From a GPU candle sends the whole buffer for each of its parts, so the part is made a buffer of
    /// its own there: room for the largest parameter's part.
    fn on_host(&self, range: &Range<usize>) -> Result<Vec<f32>, candle_core::Error> {
        let part = self.narrow(0, range.start, range.len())?;
        if part.device().is_cpu() { part.to_vec1() } else { part.force_contiguous()?.to_vec1() }
    }
}

/// Elements of a rank's buffers to be written.
#[derive(Clone, Copy, Debug)]
pub struct Owned<'a> {
    /// What they are.
    pub kind: Kind,
    /// Their values, end to end.
    pub values: &'a dyn Numbers,
    /// Where they lie in the rank's buffers.
    pub ranges: &'a [Range<usize>],
}

impl<'a> Owned<'a> {
    /// Elements of `kind`, whose values lie in `ranges` of the buffers.
    pub fn new(kind: Kind, values: &'a dyn Numbers, ranges: &'a [Range<usize>]) -> Owned<'a> {
        Owned { kind, values, ranges }
    }
}

/// File `name` with a copy of what this rank counts ([`Part::counts`]) of these elements, in fp32;
/// none when there is nothing.
pub fn copy(
    name: String,
    holding: &Holding,
    owned: &[Owned<'_>],
) -> Result<Option<FileSnapshot>, Error> {
    let mut pieces = Vec::new();
    for owned in owned {
        let mut before = 0;
        for range in owned.ranges {
            for part in holding.parts().iter().filter(|part| part.counts) {
                let Some((slice, here)) = stored(part, range) else { continue };
                let start = before + part.range.start + here.start - range.start;
                let values = owned.values.on_host(&(start..start + here.len()))?;
                let name = owned.kind.name(&part.parameter.name);
                let shape = part.parameter.stored_shape();
                pieces.push((PieceSpec { name, shape, dtype: Dtype::F32, slice }, values));
            }
            before += range.len();
        }
    }
    Ok((!pieces.is_empty()).then_some(FileSnapshot { name, pieces }))
}

/// The elements of `part` that lie in `range` of the buffers, counted in the part.
fn inside(part: &Part, range: &Range<usize>) -> Option<Range<usize>> {
    let (from, to) = (part.range.start.max(range.start), part.range.end.min(range.end));
    (from < to).then(|| from - part.range.start..to - part.range.start)
}

/// What of these is stored: without padding of the vocabulary.
fn stored(part: &Part, range: &Range<usize>) -> Option<(Slice, Range<usize>)> {
    let whole = &part.parameter.shape;
    let slice = part.slice.first_rows(part.parameter.stored_shape()[0], whole);
    if slice.ranges.is_empty() {
        return None;
    }
    let count = slice.element_count(whole);
    let here = inside(part, range)?;
    let here = here.start..here.end.min(count);
    if here.is_empty() {
        return None;
    }
    let slice = if here.len() == count { slice } else { slice.elements(here.clone()) };
    Some((slice, here))
}
