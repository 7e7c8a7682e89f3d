//! An opened checkpoint of another program, read through its form.

use super::form::{Form, own_shapes};
use super::rectangles::{Composed, Patch, Rectangle, Rectangles, extent};
use super::stored::{Number, Stored, StoredTensors};
use crate::checkpoint::error::Error;
use crate::checkpoint::source::{Source, TensorFacts};
use crate::layout::parameters::is_vocabulary;
use crate::layout::slice::Slice;
use crate::spec::architecture::Architecture;
use half::{bf16, f16};
use safetensors::Dtype;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// A checkpoint of another program.
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    architecture: Architecture,
    facts: BTreeMap<String, TensorFacts>,
    tensors: Composed<StoredTensors>,
    loose: Loose,
}

/// What does not fit between a file and the model that it should hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loose {
    /// Parameters of ours of which the file lacks something.
    pub missing: Vec<String>,
    /// Tensors of the file that the model has no place for.
    pub unused: Vec<String>,
}

impl Loose {
    /// Whether everything fits.
    pub fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.unused.is_empty()
    }
}

impl Reader {
    /// The tensors of `path`, which follow `form` for a model of this shape.
    ///
    /// A tensor of another shape than the form's is an error; what is missing or left over is in
    /// [`Reader::loose`].
    pub fn new(
        path: &Path,
        architecture: Architecture,
        form: Form,
        tensors: StoredTensors,
        is_no_weight: impl Fn(&str) -> bool,
    ) -> Result<Reader, String> {
        for (name, shape) in &form.shapes {
            if let Some(found) = tensors.get(name)
                && found.shape != *shape
            {
                return Err(format!(
                    "tensor `{name}` has shape {:?}, and its settings mean {shape:?}",
                    found.shape
                ));
            }
        }
        let unused = tensors.keys().filter(|name| !form.shapes.contains_key(*name));
        let unused = unused.filter(|name| !is_no_weight(name)).cloned().collect();
        let there =
            form.patches.into_iter().filter(|patch| tensors.contains_key(&patch.target.tensor));
        let patches: Vec<Patch> = there.map(Patch::inverse).collect();
        let shapes = own_shapes(&architecture);
        let tensors = Composed::new(tensors, patches);
        let whole =
            |name: &str, shape: &[usize]| tensors.covered(name) == shape.iter().product::<usize>();
        let missing = shapes.iter().filter(|(name, shape)| !whole(name, shape));
        let missing: Vec<String> = missing.map(|(name, _)| name.clone()).collect();
        let there = shapes.into_iter().filter(|(name, _)| !missing.contains(name));
        let facts = there.map(|(name, shape)| {
            let patch = tensors.patches(&name).first();
            let stored = patch.and_then(|patch| tensors.origin().get(&patch.origin.tensor));
            let dtype = match stored.map(|stored| stored.number) {
                Some(Number::F16) => Dtype::F16,
                Some(Number::Bf16) => Dtype::BF16,
                _ => Dtype::F32,
            };
            (name, TensorFacts { shape, dtype })
        });
        let facts = facts.collect();
        let loose = Loose { missing, unused };
        Ok(Reader { path: path.to_owned(), architecture, facts, tensors, loose })
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The shape of its model.
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// The same with a vocabulary of `ids` ids; rows after them are padding, which is left out.
    #[must_use]
    pub fn with_vocabulary(mut self, ids: usize) -> Reader {
        self.architecture.vocab_size = ids;
        for (name, facts) in &mut self.facts {
            if is_vocabulary(name) {
                facts.shape[0] = facts.shape[0].min(ids);
            }
        }
        self
    }

    /// What does not fit.
    pub fn loose(&self) -> &Loose {
        &self.loose
    }

    /// The tensors as they lie in the files.
    pub fn stored(&self) -> &BTreeMap<String, Stored> {
        self.tensors.origin()
    }
}

impl Source for Reader {
    fn path(&self) -> &Path {
        &self.path
    }

    fn tensors(&self) -> &BTreeMap<String, TensorFacts> {
        &self.facts
    }

    fn read_slice(&self, name: &str, slice: &Slice) -> Result<Vec<u8>, Error> {
        let lacks = || Error::unusable(&self.path, format!("tensor `{name}` is missing"));
        let facts = self.facts.get(name).ok_or_else(lacks)?;
        let [rows, columns] = extent(&facts.shape);
        let height = if slice.dim == 0 { slice.ranges.iter().map(Range::len).sum() } else { rows };
        let width =
            if slice.dim == 0 { columns } else { slice.ranges.iter().map(Range::len).sum() };
        let mut values = vec![0.0; height * width];
        let mut at = 0;
        for range in &slice.ranges {
            let rectangle = match slice.dim {
                0 => Rectangle { rows: range.clone(), columns: 0..columns },
                _ => Rectangle { rows: 0..rows, columns: range.clone() },
            };
            let mut part = vec![0.0; rectangle.numbers()];
            let failed = |reason| Error::unusable(&self.path, reason);
            self.tensors.read(name, &rectangle, &mut part).map_err(failed)?;
            if slice.dim == 0 {
                values[at..at + part.len()].copy_from_slice(&part);
                at += part.len();
            } else {
                let lines = part.chunks_exact(range.len());
                for (line, row) in lines.zip(values.chunks_exact_mut(width)) {
                    row[at..at + range.len()].copy_from_slice(line);
                }
                at += range.len();
            }
        }
        let flat = slice.flat.clone().unwrap_or(0..values.len());
        Ok(bytes(facts.dtype, &values[flat]))
    }
}

/// Little-endian bytes of numbers, rounded to the nearest where the format is narrower.
pub fn bytes(dtype: Dtype, values: &[f32]) -> Vec<u8> {
    match dtype {
        Dtype::BF16 => {
            values.iter().flat_map(|value| bf16::from_f32(*value).to_le_bytes()).collect()
        }
        Dtype::F16 => values.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect(),
        _ => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
    }
}

impl Rectangles for Reader {
    fn read(&self, name: &str, rectangle: &Rectangle, into: &mut [f32]) -> Result<(), String> {
        self.tensors.read(name, rectangle, into)
    }
}
