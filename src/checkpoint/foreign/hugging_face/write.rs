//! Writing a Hugging Face folder: safetensors of at most five gigabytes, an index, `config.json`.

use super::config::Family;
use super::forms::form;
use super::written::{self, Ends};
use crate::base::atomic_file;
use crate::checkpoint::error::Error;
use crate::checkpoint::foreign::written::Tensors;
use crate::checkpoint::source::Source;
use crate::spec::architecture::Architecture;
use safetensors::Dtype;
use serde_json::{Map, Value, json};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

/// Most bytes of tensors in a file.
const LARGEST_FILE: u64 = 5_000_000_000;

/// Writes `config.json` and weights into `folder`, which exists.
///
/// `progress` hears of bytes done and of all bytes.
pub fn write(
    folder: &Path,
    (source, model): (&dyn Source, &Architecture),
    dtype: Dtype,
    ends: Ends,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(), Error> {
    let refused = |reason| Error::unusable(source.path(), reason);
    let family: Family = written::family(model).map_err(refused)?;
    let tensors = Tensors::new(form(family, model), source, dtype);
    let name = if dtype == Dtype::BF16 { "bfloat16" } else { "float32" };
    text(folder, "config.json", &written::write(family, model, name, ends))?;
    let total = tensors.shapes().keys().map(|name| tensors.size(name)).sum();
    let files = files(&tensors, LARGEST_FILE);
    let mut done = 0;
    let mut tell = |bytes| {
        done += bytes;
        progress(done, total);
    };
    let mut map = Map::new();
    for (index, names) in files.iter().enumerate() {
        let file = match files.len() {
            1 => "model.safetensors".to_owned(),
            count => format!("model-{:05}-of-{count:05}.safetensors", index + 1),
        };
        weights(&folder.join(&file), &tensors, names, &mut tell)?;
        map.extend(names.iter().map(|name| ((*name).to_owned(), file.clone().into())));
    }
    if files.len() > 1 {
        let index = json!({"metadata": {"total_size": total}, "weight_map": map});
        text(folder, "model.safetensors.index.json", &index)?;
    }
    Ok(())
}

fn text(folder: &Path, name: &str, value: &Value) -> Result<(), Error> {
    let path = folder.join(name);
    atomic_file::write(&path, format!("{value:#}\n").as_bytes()).map_err(Error::io("write", &path))
}

/// Which tensors go into which file.
fn files<'a>(tensors: &'a Tensors<'_>, largest: u64) -> Vec<Vec<&'a str>> {
    let mut files: Vec<Vec<&str>> = vec![Vec::new()];
    let mut size = 0;
    for name in tensors.shapes().keys() {
        size += tensors.size(name);
        if size > largest && files.last().is_some_and(|file| !file.is_empty()) {
            files.push(Vec::new());
            size = tensors.size(name);
        }
        if let Some(file) = files.last_mut() {
            file.push(name);
        }
    }
    files
}

fn weights(
    path: &Path,
    tensors: &Tensors<'_>,
    names: &[&str],
    done: &mut dyn FnMut(u64),
) -> Result<(), Error> {
    let mut header = Map::new();
    header.insert("__metadata__".to_owned(), json!({"format": "pt"}));
    let mut at = 0;
    let dtype = if tensors.dtype == Dtype::BF16 { "BF16" } else { "F32" };
    for name in names {
        let end = at + tensors.size(name);
        let entry =
            json!({"dtype": dtype, "shape": tensors.shapes()[*name], "data_offsets": [at, end]});
        header.insert((*name).to_owned(), entry);
        at = end;
    }
    let mut header = Value::Object(header).to_string();
    // Tensors begin at a multiple of eight.
    while !header.len().is_multiple_of(8) {
        header.push(' ');
    }
    let written = |path| Error::io("write", path);
    let file = File::create(path).map_err(written(path))?;
    let mut file = BufWriter::new(file);
    file.write_all(&(header.len() as u64).to_le_bytes()).map_err(written(path))?;
    file.write_all(header.as_bytes()).map_err(written(path))?;
    for name in names {
        tensors.write(name, &mut file, done)?;
    }
    file.flush().map_err(written(path))?;
    file.get_ref().sync_all().map_err(written(path))
}
