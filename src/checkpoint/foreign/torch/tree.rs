//! A pickled object tree to tensors and facts by dotted names.

use super::TorchFile;
use crate::checkpoint::foreign::pickle::{Id, Value, Values};
use crate::checkpoint::foreign::stored::{Number, Piece, Stored};
use serde_json::Value as Json;
use std::collections::BTreeMap;

/// Deepest nesting of dictionaries that is looked into.
const DEEPEST: usize = 12;
/// Most entries that are looked at; sharing can make a small pickle a large tree.
const MOST_ENTRIES: usize = 1 << 20;

/// The bytes of a storage by its key and its size in bytes.
pub(super) struct Storages<'a>(pub(super) &'a dyn Fn(&str, usize) -> Option<Piece>);

/// Tensors and facts of the tree below `top`.
pub(super) fn collect(
    values: &Values<'_>,
    top: Id,
    storages: &Storages<'_>,
) -> Result<TorchFile, String> {
    let mut file = TorchFile::default();
    let mut waiting = vec![(String::new(), top, 0)];
    let mut seen = 0;
    while let Some((name, id, depth)) = waiting.pop() {
        seen += 1;
        if seen > MOST_ENTRIES || depth > DEEPEST {
            return Err("its pickle nests too much".to_owned());
        }
        if let Some(tensor) = tensor(values, id, storages) {
            let tensor = tensor.map_err(|reason| format!("tensor `{name}`: {reason}"))?;
            file.tensors.insert(name, tensor);
        } else if let Some(fact) = fact(values, id) {
            file.facts.insert(name, fact);
        } else {
            let state = values.state(id).filter(|_| values.entries(id).is_none());
            let entries = values.entries(state.unwrap_or(id)).unwrap_or_default();
            for (key, value) in entries {
                let key = match values.get(*key) {
                    Value::Text(key) => (*key).to_owned(),
                    Value::Int(key) => key.to_string(),
                    _ => continue,
                };
                let dot = if name.is_empty() { "" } else { "." };
                waiting.push((format!("{name}{dot}{key}"), *value, depth + 1));
            }
        }
    }
    Ok(file)
}

fn fact(values: &Values<'_>, id: Id) -> Option<Json> {
    Some(match values.get(id) {
        Value::Bool(value) => (*value).into(),
        Value::Int(value) => (*value).into(),
        Value::Float(value) => (*value).into(),
        Value::Text(value) => (*value).into(),
        _ => return None,
    })
}

/// A tensor, if the value is the making of one.
fn tensor(values: &Values<'_>, id: Id, storages: &Storages<'_>) -> Option<Result<Stored, String>> {
    let Value::Made { callee, arguments, .. } = values.get(id) else { return None };
    let arguments = values.items(*arguments)?;
    match values.get(*callee) {
        Value::Global("torch._utils", "_rebuild_tensor_v2" | "_rebuild_tensor") => {
            Some(rebuilt(values, arguments, storages))
        }
        // A parameter around a tensor, never around another parameter.
        Value::Global("torch._utils", "_rebuild_parameter")
        | Value::Global("torch.nn.parameter", "Parameter") => {
            let inner = *arguments.first()?;
            let Value::Made { callee, arguments, .. } = values.get(inner) else { return None };
            let Value::Global("torch._utils", "_rebuild_tensor_v2") = values.get(*callee) else {
                return None;
            };
            Some(rebuilt(values, values.items(*arguments)?, storages))
        }
        _ => None,
    }
}

fn rebuilt(
    values: &Values<'_>,
    arguments: &[Id],
    storages: &Storages<'_>,
) -> Result<Stored, String> {
    let damaged = || "its description is damaged".to_owned();
    let [storage, offset, shape, strides, ..] = arguments else { return Err(damaged()) };
    let sizes = |id: Id| -> Option<Vec<usize>> {
        values.items(id)?.iter().map(|size| values.size(*size)).collect()
    };
    let storage = storage_of(values, *storage).ok_or_else(damaged)?;
    let bytes = (storages.0)(storage.key, storage.bytes().ok_or_else(damaged)?);
    let bytes = bytes.ok_or_else(|| format!("storage `{}` is missing", storage.key))?;
    let (shape, strides) = sizes(*shape).zip(sizes(*strides)).ok_or_else(damaged)?;
    let offset = values.size(*offset).ok_or_else(damaged)?;
    Stored::strided(storage.number, shape, strides, offset, &bytes)
}

/// What a pickle says of a storage.
struct Storage<'a> {
    number: Number,
    key: &'a str,
    numbers: usize,
}

impl Storage<'_> {
    fn bytes(&self) -> Option<usize> {
        self.number.bytes(self.numbers)
    }
}

fn storage_of<'a>(values: &Values<'a>, id: Id) -> Option<Storage<'a>> {
    let Value::Persistent(name) = values.get(id) else { return None };
    let [_, kind, key, _, numbers, ..] = values.items(*name)? else { return None };
    let Value::Global("torch", kind) = values.get(*kind) else { return None };
    let number = match *kind {
        "FloatStorage" => Number::F32,
        "HalfStorage" => Number::F16,
        "BFloat16Storage" => Number::Bf16,
        "DoubleStorage" => Number::F64,
        "LongStorage" => Number::Other("i64", 8),
        "IntStorage" => Number::Other("i32", 4),
        "ShortStorage" => Number::Other("i16", 2),
        "CharStorage" => Number::Other("i8", 1),
        "ByteStorage" => Number::Other("u8", 1),
        "BoolStorage" => Number::Other("bool", 1),
        _ => return None,
    };
    Some(Storage { number, key: values.text(*key)?, numbers: values.size(*numbers)? })
}

/// The size in bytes of every storage that is named, by its key.
pub(super) fn storages(values: &Values<'_>) -> Result<BTreeMap<String, usize>, String> {
    let mut sizes = BTreeMap::new();
    for storage in values.all().filter_map(|id| storage_of(values, id)) {
        let bytes = storage.bytes().ok_or("a storage is too large")?;
        sizes.insert(storage.key.to_owned(), bytes);
    }
    Ok(sizes)
}
