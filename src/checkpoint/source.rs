//! A model's parameters by name, any rectangle of each, read when asked for and never all at once.
//!
//! Readers of every format give one; writers of every format take one. Names and shapes are those of
//! [`crate::layout::parameters::table`] of the source's own architecture.

use crate::layout::parameters;
use crate::spec::architecture::Architecture;
use half::bf16;
use std::ops::Range;
use std::path::PathBuf;

/// How numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Number {
    /// IEEE single precision.
    F32,
    /// The upper half of [`Number::F32`].
    Bf16,
    /// IEEE half precision.
    F16,
    /// IEEE double precision.
    F64,
    /// Blocks of small integers with scales (GGUF).
    Quantized,
}

/// A rectangle of a parameter; a vector of `n` numbers counts as `n` rows of one column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Its rows (dim 0).
    pub rows: Range<usize>,
    /// Its columns (dim 1).
    pub columns: Range<usize>,
}

impl Slice {
    /// All of a tensor of this shape: one or two dims.
    pub fn whole(shape: &[usize]) -> Slice {
        let rows = shape.first().copied().unwrap_or(1);
        Slice { rows: 0..rows, columns: 0..shape.iter().skip(1).product() }
    }

    /// How many numbers it has.
    pub fn len(&self) -> usize {
        self.rows.len() * self.columns.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Why a part of a source cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot read `{name}` of {}: {reason}", path.display())]
pub struct Unreadable {
    /// The checkpoint.
    pub path: PathBuf,
    /// The parameter.
    pub name: String,
    /// What is wrong.
    pub reason: String,
}

/// A model's parameters, read when asked for.
pub trait Source: Sync {
    /// The shape of the model. `padded_vocab_size` is the number of rows that the source itself has.
    fn architecture(&self) -> &Architecture;

    /// How the numbers of `name` are stored, which says what a copy without loss needs; none when
    /// the source has no such parameter.
    fn number(&self, name: &str) -> Option<Number>;

    /// Writes the numbers of `slice` of `name`, row-major, into `into`, which has as many.
    fn read_f32(&self, name: &str, slice: &Slice, into: &mut [f32]) -> Result<(), Unreadable>;

    /// [`read_f32`](Source::read_f32), rounded to the nearest.
    fn read_bf16(&self, name: &str, slice: &Slice, into: &mut [bf16]) -> Result<(), Unreadable> {
        let width = slice.columns.len().max(1);
        let band = (BAND / width).max(1);
        let mut wide = vec![0.0; band.min(slice.rows.len()) * width];
        for (start, narrow) in slice.rows.clone().step_by(band).zip(into.chunks_mut(band * width)) {
            let rows = start..start + narrow.len() / width;
            let wide = &mut wide[..narrow.len()];
            self.read_f32(name, &Slice { rows, columns: slice.columns.clone() }, wide)?;
            for (narrow, wide) in narrow.iter_mut().zip(wide) {
                *narrow = bf16::from_f32(*wide);
            }
        }
        Ok(())
    }
}

/// Numbers that are held at once while they are rounded.
const BAND: usize = 1 << 18;

/// A source with another number of padding rows in its vocabulary: these read as zeros.
#[derive(Clone, Debug)]
pub struct Repadded<S> {
    source: S,
    architecture: Architecture,
}

impl<S: AsRef<dyn Source>> Repadded<S> {
    /// `source` with `padded_vocab_size` rows of vocabulary, at least its `vocab_size`.
    pub fn new(source: S, padded_vocab_size: usize) -> Repadded<S> {
        let found = source.as_ref().architecture();
        let architecture = Architecture {
            padded_vocab_size: padded_vocab_size.max(found.vocab_size),
            ..found.clone()
        };
        Repadded { source, architecture }
    }
}

impl<S: AsRef<dyn Source> + Sync> Source for Repadded<S> {
    fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    fn number(&self, name: &str) -> Option<Number> {
        self.source.as_ref().number(name)
    }

    fn read_f32(&self, name: &str, slice: &Slice, into: &mut [f32]) -> Result<(), Unreadable> {
        if !parameters::is_vocabulary(name) {
            return self.source.as_ref().read_f32(name, slice, into);
        }
        let real = self.architecture.vocab_size;
        let rows = slice.rows.start.min(real)..slice.rows.end.min(real);
        let (values, padding) = into.split_at_mut(rows.len() * slice.columns.len());
        padding.fill(0.0);
        let slice = Slice { rows, columns: slice.columns.clone() };
        self.source.as_ref().read_f32(name, &slice, values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::parameters::{WORD_EMBEDDINGS, llama_7b};

    /// Every number is its place: `1000 · row + column`.
    struct Places(Architecture);

    impl Source for Places {
        fn architecture(&self) -> &Architecture {
            &self.0
        }

        fn number(&self, _: &str) -> Option<Number> {
            Some(Number::F32)
        }

        fn read_f32(&self, _: &str, slice: &Slice, into: &mut [f32]) -> Result<(), Unreadable> {
            let columns = || slice.columns.clone();
            let places = slice.rows.clone().flat_map(|row| columns().map(move |at| (row, at)));
            for (value, (row, column)) in into.iter_mut().zip(places) {
                *value = (1000 * row + column) as f32;
            }
            Ok(())
        }
    }

    #[test]
    fn padding_reads_as_zeros_and_the_rest_as_it_was() {
        let places = Places(Architecture { vocab_size: 3, padded_vocab_size: 4, ..llama_7b() });
        let source: Box<dyn Source> = Box::new(places);
        let repadded = Repadded::new(source, 6);
        assert_eq!(repadded.architecture().padded_vocab_size, 6);
        let mut values = [9.0; 8];
        let slice = Slice { rows: 2..6, columns: 1..3 };
        repadded.read_f32(WORD_EMBEDDINGS, &slice, &mut values).unwrap();
        assert_eq!(values, [2001.0, 2002.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn rounding_goes_band_by_band_to_the_same_numbers() {
        let source = Places(llama_7b());
        let slice = Slice { rows: 1..3, columns: 0..BAND + 7 };
        let mut wide = vec![0.0; slice.len()];
        source.read_f32("x", &slice, &mut wide).unwrap();
        let mut narrow = vec![bf16::ZERO; slice.len()];
        source.read_bf16("x", &slice, &mut narrow).unwrap();
        assert!(narrow.iter().zip(wide).all(|(narrow, wide)| *narrow == bf16::from_f32(wide)));
    }
}
