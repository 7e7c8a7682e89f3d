//! The older form (before PyTorch 1.6): four pickles one after the other, then the storages.

use super::tree::{Storages, collect, storages};
use super::{LARGEST_PICKLE, TorchFile};
use crate::checkpoint::foreign::pickle::{self, Value};
use crate::checkpoint::foreign::stored::Piece;
use std::collections::BTreeMap;

/// The first pickle, a number of ten bytes (`torch/serialization.py`, `MAGIC_NUMBER`).
const MAGIC: &[u8] = &[0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

pub(super) fn read(file: &Piece) -> Result<TorchFile, String> {
    let head = file.part(0..file.len().min(LARGEST_PICKLE)).ok_or("it is empty")?;
    let mut at = 0;
    let mut next = || {
        let (values, top, length) =
            pickle::parse(&head[at..]).map_err(|error| error.to_string())?;
        at += length;
        Ok::<_, String>((values, top, at))
    };
    let not_torch = || "it is no file of torch.save".to_owned();
    let (values, top, _) = next().map_err(|_| not_torch())?;
    if *values.get(top) != Value::Long(MAGIC) {
        return Err(not_torch());
    }
    let (values, top, _) = next()?;
    if values.size(top) != Some(1001) {
        return Err("it was written by a version of torch.save that is not known".to_owned());
    }
    let (values, top, _) = next()?;
    let little = values.field(top, "little_endian").map(|id| values.get(id).clone());
    if little == Some(Value::Bool(false)) {
        return Err("its numbers are not little-endian".to_owned());
    }
    let (values, top, _) = next()?;
    let (key_values, keys, end) = next()?;
    let sizes = storages(&values)?;
    let keys = key_values.items(keys).ok_or("its list of storages is damaged")?;
    let mut places = BTreeMap::new();
    let mut at = end;
    for key in keys {
        let key = key_values.text(*key).ok_or("its list of storages is damaged")?;
        let bytes = *sizes.get(key).ok_or_else(|| format!("storage `{key}` is never used"))?;
        // The number of numbers stands before them.
        let start = at + 8;
        at = start.checked_add(bytes).ok_or("a storage is too large")?;
        let place = file.part(start..at).ok_or("it ends within a storage")?;
        places.insert(key.to_owned(), place);
    }
    collect(&values, top, &Storages(&|key, _| places.get(key).cloned()))
}
