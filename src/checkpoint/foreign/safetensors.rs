//! Tensors of safetensors files.

use super::stored::{Number, Piece, Stored, StoredTensors};
use safetensors::{Dtype, SafeTensors};

/// The tensors of one file; its header is held against the file's length.
pub fn tensors(file: &Piece) -> Result<StoredTensors, String> {
    let damaged = |error: safetensors::SafeTensorError| format!("its header is wrong: {error}");
    let (header, metadata) = SafeTensors::read_metadata(file).map_err(damaged)?;
    let start = header.checked_add(8).ok_or("its header is too long")?;
    let data = file.part(start..file.len()).ok_or("its header is longer than the file")?;
    let mut tensors = StoredTensors::new();
    for (name, info) in metadata.tensors() {
        let (start, end) = info.data_offsets;
        let wrong = || format!("tensor `{name}` lies outside the file");
        let bytes = data.part(start..end).ok_or_else(wrong)?;
        let stored = Stored::row_major(number(info.dtype), info.shape.clone(), bytes)
            .map_err(|reason| format!("tensor `{name}`: {reason}"))?;
        tensors.insert(name, stored);
    }
    Ok(tensors)
}

fn number(dtype: Dtype) -> Number {
    match dtype {
        Dtype::F32 => Number::F32,
        Dtype::F16 => Number::F16,
        Dtype::BF16 => Number::Bf16,
        Dtype::F64 => Number::F64,
        Dtype::I64 => Number::Other("i64", 8),
        Dtype::I32 => Number::Other("i32", 4),
        Dtype::U8 => Number::Other("u8", 1),
        Dtype::BOOL => Number::Other("bool", 1),
        _ => Number::Other("numbers of another kind", 0),
    }
}
