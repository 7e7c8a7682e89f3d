//! The weights of a source for a model of a wanted shape; what the source lacks starts fresh.

use super::error::Error;
use super::manifest::Kind;
use super::source::{Source, TensorFacts};
use crate::base::seed::Stream;
use crate::layout::parameters::{Parameter, table};
use crate::layout::slice::Slice;
use crate::spec::architecture::Architecture;
use safetensors::Dtype;
use std::collections::BTreeMap;
use std::path::Path;

/// A source without optimizer state, filled up with start values.
pub struct Completed<'a> {
    source: &'a dyn Source,
    tensors: BTreeMap<String, TensorFacts>,
    /// Parameters that the source lacks.
    fresh: BTreeMap<String, Parameter>,
    seed: u64,
}

impl<'a> Completed<'a> {
    /// The weights of `source`; parameters of `wanted` that it lacks start from `seed`.
    pub fn new(source: &'a dyn Source, wanted: &Architecture, seed: u64) -> Completed<'a> {
        let weights = source.tensors().iter();
        let weights = weights.filter(|(name, _)| Kind::of(name).0 == Kind::Weight);
        let mut tensors: BTreeMap<_, _> =
            weights.map(|(name, facts)| (name.clone(), facts.clone())).collect();
        let mut fresh = BTreeMap::new();
        for parameter in table(wanted) {
            if !tensors.contains_key(&parameter.name) {
                let facts = TensorFacts { shape: parameter.stored_shape(), dtype: Dtype::F32 };
                tensors.insert(parameter.name.clone(), facts);
                fresh.insert(parameter.name.clone(), parameter);
            }
        }
        Completed { source, tensors, fresh, seed }
    }

    /// Names of the parameters that start fresh.
    pub fn fresh(&self) -> impl Iterator<Item = &str> {
        self.fresh.keys().map(String::as_str)
    }
}

impl Source for Completed<'_> {
    fn path(&self) -> &Path {
        self.source.path()
    }

    fn tensors(&self) -> &BTreeMap<String, TensorFacts> {
        &self.tensors
    }

    fn read_slice(&self, name: &str, slice: &Slice) -> Result<Vec<u8>, Error> {
        let Some(parameter) = self.fresh.get(name) else {
            return self.source.read_slice(name, slice);
        };
        let stream: Stream = parameter.start_stream(self.seed);
        let shape = parameter.stored_shape();
        let runs = slice.runs(&shape);
        let places = runs.flatten();
        let value = |place| parameter.start_value(&stream, place) as f32;
        Ok(places.flat_map(|place| value(place).to_le_bytes()).collect())
    }
}
