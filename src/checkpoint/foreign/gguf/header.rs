//! The header of a GGUF file: metadata and where each tensor lies (versions 2 and 3, little-endian).
//!
//! The layout is that of ggml's `docs/gguf.md`. Every length is held against the file before
//! anything of it is kept.

use crate::checkpoint::foreign::quantized::Block;
use crate::checkpoint::foreign::stored::{Number, Piece, Stored, StoredTensors};
use serde_json::{Number as JsonNumber, Value};
use std::collections::BTreeMap;

/// What a file holds.
#[derive(Clone, Debug, Default)]
pub struct Gguf {
    /// Metadata by key.
    pub metadata: BTreeMap<String, Value>,
    /// Tensors by name.
    pub tensors: StoredTensors,
}

/// Most values of all metadata together; a vocabulary of 256,000 ids has three of each.
const MOST_VALUES: u64 = 8 << 20;
/// Where tensors begin when the metadata does not say it.
const ALIGNMENT: u64 = 32;

/// Reads the header of `file`.
pub fn read(file: &Piece) -> Result<Gguf, String> {
    let mut cursor = Cursor { bytes: file, at: 0, values: 0 };
    if cursor.take(4)? != b"GGUF" {
        return Err("it does not begin with `GGUF`".to_owned());
    }
    let version = cursor.u32()?;
    if !(2..=3).contains(&version) {
        return Err(format!("its version is {version}, and 2 and 3 are read"));
    }
    let (tensors, entries) = (cursor.u64()?, cursor.u64()?);
    let mut metadata = BTreeMap::new();
    for _ in 0..entries {
        let key = cursor.text()?.to_owned();
        let kind = cursor.u32()?;
        let value = cursor.value(kind, 0).map_err(|reason| format!("`{key}`: {reason}"))?;
        metadata.insert(key, value);
    }
    let mut places = Vec::new();
    for _ in 0..tensors {
        places.push(cursor.place()?);
    }
    let alignment = metadata.get("general.alignment").and_then(Value::as_u64).unwrap_or(ALIGNMENT);
    if !alignment.is_power_of_two() {
        return Err(format!("its alignment is {alignment}"));
    }
    let data = (cursor.at as u64).checked_next_multiple_of(alignment);
    let data = data.and_then(|start| usize::try_from(start).ok());
    let data = data.and_then(|start| file.part(start..file.len()));
    let data = data.ok_or("it ends before its tensors")?;
    let stored = |place: Place| {
        let wrong = |reason: String| format!("tensor `{}`: {reason}", place.name);
        let rest = data.part(place.offset..data.len());
        let rest = rest.ok_or_else(|| wrong("it lies outside the file".to_owned()))?;
        let tensor = Stored::row_major(place.number, place.shape, rest).map_err(wrong)?;
        Ok::<_, String>((place.name, tensor))
    };
    let tensors = places.into_iter().map(stored).collect::<Result<_, _>>()?;
    Ok(Gguf { metadata, tensors })
}

struct Place {
    name: String,
    shape: Vec<usize>,
    number: Number,
    offset: usize,
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Values of metadata so far.
    values: u64,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let taken = self.bytes[self.at..].get(..count).ok_or("its header is cut short")?;
        self.at += count;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        self.take(N)?.try_into().map_err(|_| "its header is cut short".to_owned())
    }

    fn u32(&mut self) -> Result<u32, String> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, String> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn size(&mut self) -> Result<usize, String> {
        let size = self.u64()?;
        usize::try_from(size).map_err(|_| format!("a length of {size} is too large"))
    }

    fn text(&mut self) -> Result<&'a str, String> {
        let count = self.size()?;
        std::str::from_utf8(self.take(count)?).map_err(|_| "a text is not UTF-8".to_owned())
    }

    fn value(&mut self, kind: u32, depth: usize) -> Result<Value, String> {
        self.values += 1;
        if self.values > MOST_VALUES {
            return Err(format!("there are more than {MOST_VALUES} values"));
        }
        Ok(match kind {
            0 => u8::from_le_bytes(self.array()?).into(),
            1 => i8::from_le_bytes(self.array()?).into(),
            2 => u16::from_le_bytes(self.array()?).into(),
            3 => i16::from_le_bytes(self.array()?).into(),
            4 => self.u32()?.into(),
            5 => i32::from_le_bytes(self.array()?).into(),
            6 => float(f32::from_le_bytes(self.array()?).into()),
            7 => (self.array::<1>()? != [0]).into(),
            8 => self.text()?.into(),
            9 if depth < 2 => {
                let (kind, count) = (self.u32()?, self.size()?);
                // Nothing is reserved: the count may lie.
                let mut items = Vec::new();
                for _ in 0..count {
                    items.push(self.value(kind, depth + 1)?);
                }
                Value::Array(items)
            }
            10 => self.u64()?.into(),
            11 => i64::from_le_bytes(self.array()?).into(),
            12 => float(f64::from_le_bytes(self.array()?)),
            other => return Err(format!("values of kind {other} are not known")),
        })
    }

    fn place(&mut self) -> Result<Place, String> {
        let name = self.text()?.to_owned();
        let dims = self.u32()?;
        if dims > 4 {
            return Err(format!("tensor `{name}` has {dims} dims"));
        }
        let mut shape = Vec::new();
        for _ in 0..dims {
            shape.push(self.size()?);
        }
        // The fastest dim comes first in the file.
        shape.reverse();
        let number = match self.u32()? {
            0 => Number::F32,
            1 => Number::F16,
            2 => Number::Quantized(Block::Q4_0),
            3 => Number::Quantized(Block::Q4_1),
            8 => Number::Quantized(Block::Q8_0),
            12 => Number::Quantized(Block::Q4K),
            14 => Number::Quantized(Block::Q6K),
            28 => Number::F64,
            30 => Number::Bf16,
            other => {
                return Err(format!(
                    "tensor `{name}` has numbers of ggml's type {other}, and f32, f16, bf16, q4_0, \
                     q4_1, q8_0, q4_K and q6_K are read"
                ));
            }
        };
        Ok(Place { name, shape, number, offset: self.size()? })
    }
}

/// JSON has no infinities; a score that is one reads as null.
fn float(value: f64) -> Value {
    JsonNumber::from_f64(value).map_or(Value::Null, Value::Number)
}
