//! A tensor as it lies in a mapped file: bytes, a number format, a shape and strides.

use super::quantized::Block;
use super::rectangles::{Rectangle, Rectangles, extent};
use crate::base::mapped_file::MappedFile;
use half::{bf16, f16};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;

/// A piece of a file.
#[derive(Clone, Debug)]
pub struct Piece {
    file: Arc<Held>,
    range: Range<usize>,
}

#[derive(Debug)]
enum Held {
    Mapped(MappedFile),
    Bytes(Vec<u8>),
}

impl Deref for Held {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Held::Mapped(file) => file,
            Held::Bytes(bytes) => bytes,
        }
    }
}

impl Piece {
    /// The whole of a mapped file.
    pub fn whole(file: MappedFile) -> Piece {
        let range = 0..file.len();
        Piece { file: Arc::new(Held::Mapped(file)), range }
    }

    /// Bytes that are in no file.
    pub fn of_bytes(bytes: &[u8]) -> Piece {
        let range = 0..bytes.len();
        Piece { file: Arc::new(Held::Bytes(bytes.to_vec())), range }
    }

    /// A part of it; none when it reaches over the end.
    pub fn part(&self, range: Range<usize>) -> Option<Piece> {
        let start = self.range.start.checked_add(range.start)?;
        let end = self.range.start.checked_add(range.end)?;
        let inside = range.start <= range.end && end <= self.range.end;
        inside.then(|| Piece { file: Arc::clone(&self.file), range: start..end })
    }
}

impl Deref for Piece {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.file[self.range.clone()]
    }
}

/// How the numbers of a tensor are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Number {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of [`Number::F32`].
    Bf16,
    /// IEEE double precision.
    F64,
    /// Blocks of small integers with scales.
    Quantized(Block),
    /// Something that is no weight, so many bytes each.
    Other(&'static str, usize),
}

impl fmt::Display for Number {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Number::F32 => "f32",
            Number::F16 => "f16",
            Number::Bf16 => "bf16",
            Number::F64 => "f64",
            Number::Quantized(block) => block.name(),
            Number::Other(name, _) => name,
        })
    }
}

impl Number {
    /// Bytes of `count` numbers that follow each other; none when they are no whole blocks or too many.
    pub fn bytes(self, count: usize) -> Option<usize> {
        let each = match self {
            Number::F32 => 4,
            Number::F16 | Number::Bf16 => 2,
            Number::F64 => 8,
            Number::Other(_, bytes) => bytes,
            Number::Quantized(block) => {
                let whole = count.is_multiple_of(block.numbers());
                return (count / block.numbers()).checked_mul(block.bytes()).filter(|_| whole);
            }
        };
        count.checked_mul(each)
    }
}

/// A tensor in a file.
#[derive(Clone, Debug)]
pub struct Stored {
    /// How its numbers are stored.
    pub number: Number,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Numbers from one place of a dim to the next.
    strides: Vec<usize>,
    bytes: Piece,
}

impl Stored {
    /// A row-major tensor at the beginning of `bytes`.
    #[expect(clippy::needless_pass_by_value, reason = "the tensor takes its shape over")]
    pub fn row_major(number: Number, shape: Vec<usize>, bytes: Piece) -> Result<Stored, String> {
        let mut stride = Some(1_usize);
        let mut strides = vec![0; shape.len()];
        for (dim, size) in shape.iter().enumerate().rev() {
            strides[dim] = stride.ok_or_else(|| format!("its shape {shape:?} is too large"))?;
            stride = strides[dim].checked_mul(*size);
        }
        Stored::strided(number, shape, strides, 0, &bytes)
    }

    /// A tensor whose first number is number `offset` of `bytes`.
    pub fn strided(
        number: Number,
        shape: Vec<usize>,
        strides: Vec<usize>,
        offset: usize,
        bytes: &Piece,
    ) -> Result<Stored, String> {
        if shape.len() != strides.len() {
            return Err(format!("it has {} dims and {} strides", shape.len(), strides.len()));
        }
        let too_large = || format!("its shape {shape:?} does not lie within the file");
        // Of an empty tensor too: its other dims are multiplied by themselves elsewhere.
        let product = shape.iter().try_fold(1_usize, |all, size| all.checked_mul((*size).max(1)));
        let is_empty = shape.contains(&0);
        product.ok_or_else(too_large)?;
        let mut last = Some(0_usize);
        for (size, stride) in shape.iter().zip(&strides) {
            let reach = size.saturating_sub(1).checked_mul(*stride);
            last = last.zip(reach).and_then(|(last, reach)| last.checked_add(reach));
        }
        let end = last.and_then(|last| last.checked_add((!is_empty).into()));
        let end = end.and_then(|end| number.bytes(end)).ok_or_else(too_large)?;
        let start = number.bytes(offset).ok_or_else(too_large)?;
        let past = start.checked_add(end).ok_or_else(too_large)?;
        let bytes = bytes.part(start..past).ok_or_else(too_large)?;
        Ok(Stored { number, shape, strides, bytes })
    }

    /// Number of numbers.
    pub fn numbers(&self) -> usize {
        self.shape.iter().product()
    }

    /// The bytes that hold it, when it is row-major.
    pub fn contiguous(&self) -> Option<&[u8]> {
        let mut stride = 1;
        for (size, found) in self.shape.iter().zip(&self.strides).rev() {
            if *size != 1 && *found != stride {
                return None;
            }
            stride *= size;
        }
        Some(&self.bytes)
    }

    /// Reads a rectangle; the tensor has one or two dims.
    pub fn read(&self, rectangle: &Rectangle, into: &mut [f32]) -> Result<(), String> {
        let [rows, columns] = extent(&self.shape);
        let inside = rectangle.rows.end <= rows && rectangle.columns.end <= columns;
        if self.shape.len() > 2 || !inside {
            return Err(format!("its shape is {:?}", self.shape));
        }
        let width = rectangle.columns.len();
        let by_row = self.strides.first().copied().unwrap_or(1);
        let by_column = self.strides.get(1).copied().unwrap_or(1);
        if width == 0 || rectangle.rows.is_empty() {
            return Ok(());
        }
        // A vector's rows, and rows that follow each other without gaps, are one run.
        if by_row == columns && (by_column == 1 || columns == 1) && width == columns {
            return self.run(rectangle.rows.start * columns, into);
        }
        for (row, line) in rectangle.rows.clone().zip(into.chunks_exact_mut(width)) {
            let start = row * by_row + rectangle.columns.start * by_column;
            if by_column == 1 {
                self.run(start, line)?;
            } else {
                for (at, value) in line.iter_mut().enumerate() {
                    self.run(start + at * by_column, std::slice::from_mut(value))?;
                }
            }
        }
        Ok(())
    }

    /// Numbers that follow each other from number `start` on.
    fn run(&self, start: usize, into: &mut [f32]) -> Result<(), String> {
        match self.number {
            Number::F32 => self.widen(start, into, f32::from_le_bytes),
            Number::F16 => self.widen(start, into, |bytes| f16::from_le_bytes(bytes).to_f32()),
            Number::Bf16 => self.widen(start, into, |bytes| bf16::from_le_bytes(bytes).to_f32()),
            Number::F64 => self.widen(start, into, |bytes| f64::from_le_bytes(bytes) as f32),
            Number::Quantized(block) => block.read(&self.bytes, start, into),
            Number::Other(name, _) => return Err(format!("its numbers are {name}")),
        }
        Ok(())
    }

    fn widen<const N: usize>(&self, start: usize, into: &mut [f32], f: impl Fn([u8; N]) -> f32) {
        let bytes = &self.bytes[start * N..(start + into.len()) * N];
        for (value, bytes) in into.iter_mut().zip(bytes.as_chunks::<N>().0) {
            *value = f(*bytes);
        }
    }
}

/// Tensors of one or more files by name.
pub type StoredTensors = BTreeMap<String, Stored>;

impl Rectangles for StoredTensors {
    fn read(&self, name: &str, rectangle: &Rectangle, into: &mut [f32]) -> Result<(), String> {
        let tensor = self.get(name).ok_or_else(|| format!("there is no tensor `{name}`"))?;
        tensor.read(rectangle, into).map_err(|reason| format!("tensor `{name}`: {reason}"))
    }
}
