//! Reading a Hugging Face folder.

use super::config::{self, Family};
use super::forms::{self, is_no_weight};
use crate::base::mapped_file::MappedFile;
use crate::checkpoint::foreign::reader::Reader;
use crate::checkpoint::foreign::stored::{Piece, StoredTensors};
use crate::checkpoint::foreign::{form, safetensors, torch};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Names of the weights, the first that is there counts.
const WEIGHTS: [&str; 4] = [
    "model.safetensors.index.json",
    "model.safetensors",
    "pytorch_model.bin.index.json",
    "pytorch_model.bin",
];

/// Opens the folder at `path`.
pub fn open(path: &Path) -> Result<Reader, String> {
    let text = fs::read_to_string(path.join("config.json"))
        .map_err(|error| format!("its config.json cannot be read: {error}"))?;
    let (family, architecture) = config::read(&text)?;
    let tensors = bare(family, tensors(path)?);
    form::check(&architecture, tensors.len())?;
    // A tied head is saved by some versions, and is the embedding.
    let tied = architecture.share_embeddings_and_output_weights;
    let head = |name: &str| tied && matches!(name, "lm_head.weight" | "embed_out.weight");
    let form = forms::form(family, &architecture);
    Reader::new(path, architecture, form, tensors, |name| is_no_weight(name) || head(name))
}

/// The tensors of the folder's weight files.
pub fn tensors(path: &Path) -> Result<StoredTensors, String> {
    let found = WEIGHTS.into_iter().find(|name| path.join(name).is_file());
    let name = found.ok_or_else(|| format!("it has no weights ({})", WEIGHTS.join(", ")))?;
    let files = if name.ends_with(".index.json") {
        indexed_files(&path.join(name))?
    } else {
        BTreeSet::from([name.to_owned()])
    };
    let mut tensors = StoredTensors::new();
    for file in files {
        let in_file = |reason: String| format!("`{file}`: {reason}");
        for (name, tensor) in weight_file(&path.join(&file)).map_err(in_file)? {
            if tensors.insert(name.clone(), tensor).is_some() {
                return Err(format!("tensor `{name}` is in two of its files"));
            }
        }
    }
    Ok(tensors)
}

/// The tensors of a safetensors or PyTorch file.
pub(super) fn weight_file(path: &Path) -> Result<StoredTensors, String> {
    let map = MappedFile::open(path).map_err(|error| format!("it cannot be read: {error}"))?;
    let file = Piece::whole(map);
    if path.extension().is_some_and(|ending| ending == "safetensors") {
        return safetensors::tensors(&file);
    }
    Ok(torch::read(&file)?.tensors)
}

/// The files that an index names; one outside the folder is refused.
fn indexed_files(path: &Path) -> Result<BTreeSet<String>, String> {
    let wrong = |reason: String| format!("its index of weights is wrong: {reason}");
    let text = fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let index: Value = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    let map = index["weight_map"].as_object().ok_or_else(|| wrong("no weight_map".to_owned()))?;
    let name = |value: &Value| {
        let name = value.as_str().unwrap_or_default();
        let plain = !name.is_empty() && !name.contains(['/', '\\']) && name != "..";
        plain.then(|| name.to_owned()).ok_or_else(|| wrong(format!("it names the file {value}")))
    };
    map.values().map(name).collect()
}

/// Names as a model with a head has them: files of a model without one lack the first part.
fn bare(family: Family, tensors: StoredTensors) -> StoredTensors {
    let (prefix, first) = match family {
        Family::Gpt2 => ("transformer.", ["wte.", "wpe.", "h.", "ln_f."].as_slice()),
        Family::Llama => ("model.", ["embed_tokens.", "layers.", "norm."].as_slice()),
        Family::GptNeox => ("gpt_neox.", ["embed_in.", "layers.", "final_layer_norm."].as_slice()),
    };
    let full = |name: String| {
        let lacks = first.iter().any(|first| name.starts_with(first));
        if lacks { format!("{prefix}{name}") } else { name }
    };
    tensors.into_iter().map(|(name, tensor)| (full(name), tensor)).collect()
}
