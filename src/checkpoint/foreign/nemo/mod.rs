//! NeMo's archives and folders, and Megatron-LM's, whatever layout they were saved at.

pub mod config;
pub mod form;
mod members;
pub mod names;
mod write;

pub use write::{Request, write};

use super::form::check;
use super::reader::Reader;
use super::stored::StoredTensors;
use super::torch;
use crate::layout::parameters::{OUTPUT_LAYER, WORD_EMBEDDINGS};
use crate::spec::architecture::Architecture;
use config::{Found, Settings};
use form::{Cut, key};
use members::{Members, Rank};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::Path;

/// An opened checkpoint and the tokenizer files that lie in it, by the names that recipes give them.
#[derive(Debug)]
pub struct Opened {
    /// The weights.
    pub reader: Reader,
    /// `tokenizer.model`, or `tokenizer.vocab_file` and `tokenizer.merge_file`, and their bytes.
    pub tokenizer: BTreeMap<String, Vec<u8>>,
    /// The layout that it was saved at: tensor- and pipeline-parallel ranks.
    pub layout: [usize; 2],
    /// Whether rows of the vocabulary may be padding: neither the file nor `wanted` says how many
    /// of them are ids.
    pub may_be_padded: bool,
    /// Whether `query_key_value` has the old order.
    pub legacy_order: bool,
}

/// What a recipe says of a checkpoint, by which a folder without settings is read.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The shape.
    pub architecture: &'a Architecture,
    /// The old order of queries, keys and values (`model.megatron_legacy`).
    pub legacy_order: bool,
}

/// Opens what lies at `path`; `wanted` is what a recipe says of it.
pub fn open(path: &Path, wanted: Option<Wanted<'_>>) -> Result<Opened, String> {
    let members = members::find(path)?;
    let (tensor, pipeline) = members.layout()?;
    let mut tensors = StoredTensors::new();
    let mut facts = Map::new();
    for (rank, file) in &members.ranks {
        let read = torch::read(file).map_err(|reason| format!("`{rank}`: {reason}"))?;
        for (theirs, tensor) in read.tensors {
            if let Some(name) = names::ours(&theirs) {
                tensors.insert(key(rank.tensor, rank.pipeline, &name), tensor);
            }
        }
        facts = read.facts;
    }
    let settings = settings(&members, &facts)?;
    let cut = Cut {
        tensor,
        pipeline,
        legacy_order: legacy_order(settings.as_ref(), &facts, wanted)?,
        separate_gate: tensors.keys().any(|name| name.contains("dense_h_to_4h_2.")),
    };
    let found = found(&tensors, &cut, settings.as_ref().map(Settings::is_gated));
    let model = match (&settings, wanted) {
        (Some(settings), _) => settings.architecture(&found)?,
        (None, Some(wanted)) => {
            Architecture { padded_vocab_size: found.vocabulary, ..wanted.architecture.clone() }
        }
        (None, None) => {
            return Err(
                "nothing in it says the model's shape: put its model_config.yaml beside the \
                        ranks' folders"
                    .to_owned(),
            );
        }
    };
    // Padding rows of the file count as ids unless the recipe or the file says how many there are.
    let told = settings.as_ref().and_then(|settings| settings.vocab_size).filter(|size| *size > 0);
    let told = wanted.map(|wanted| wanted.architecture.vocab_size).or(told);
    let (vocab_size, may_be_padded) = (told.unwrap_or(found.vocabulary), told.is_none());
    let model = Architecture { vocab_size: vocab_size.min(found.vocabulary), ..model };
    check(&model, tensors.len())?;
    let form = form::form(&model, &cut)?;
    let tied = model.share_embeddings_and_output_weights;
    let copy = |name: &str| tied && name.ends_with(OUTPUT_LAYER);
    let reader = Reader::new(path, model, form, tensors, copy)?;
    let tokenizer = settings.map(|settings| members.tokenizer(&settings.tokenizer));
    let (tokenizer, layout) = (tokenizer.unwrap_or_default(), [tensor, pipeline]);
    Ok(Opened { reader, tokenizer, layout, may_be_padded, legacy_order: cut.legacy_order })
}

fn settings(members: &Members, facts: &Map<String, Value>) -> Result<Option<Settings>, String> {
    if let Some(text) = members.settings() {
        return config::nemo(&text?).map(Some);
    }
    has_arguments(facts).then(|| config::megatron(facts)).transpose()
}

/// Whether `query_key_value` has the old order: the file says so, and the recipe where it does not.
fn legacy_order(
    settings: Option<&Settings>,
    facts: &Map<String, Value>,
    wanted: Option<Wanted<'_>>,
) -> Result<bool, String> {
    let told = settings.map(Settings::legacy_order);
    Ok(match (old_version(facts)?, told) {
        (Some(old), told) => old || told.unwrap_or(false),
        (None, Some(told)) => told,
        (None, None) => wanted.is_some_and(|wanted| wanted.legacy_order),
    })
}

/// Whether Megatron-LM's checkpoint version means the old order of `query_key_value`; none in files
/// of others. Megatron-LM takes its own files without a version for version 0.
fn old_version(facts: &Map<String, Value>) -> Result<Option<bool>, String> {
    let version = facts.get("checkpoint_version").and_then(Value::as_f64);
    match version.or_else(|| has_arguments(facts).then_some(0.0)) {
        None => Ok(None),
        Some(version) if version >= 2.0 => Ok(Some(false)),
        Some(version) if version < 1.0 => Ok(Some(true)),
        Some(version) => Err(format!(
            "its checkpoint_version {version} orders queries, keys and values in a way that is not \
             read: save it again with Megatron-LM 2 or later"
        )),
    }
}

/// Whether Megatron-LM's arguments are saved in the files.
fn has_arguments(facts: &Map<String, Value>) -> bool {
    facts.keys().any(|key| key.starts_with("args."))
}

fn found(tensors: &StoredTensors, cut: &Cut, is_gated: Option<bool>) -> Found {
    let rows = |name: &str| {
        let tensor = tensors.get(&key(0, 0, name))?;
        Some(tensor.shape.first().copied()?.saturating_mul(cut.tensor))
    };
    let halves = if is_gated == Some(true) && !cut.separate_gate { 2 } else { 1 };
    Found {
        vocabulary: rows(WORD_EMBEDDINGS).unwrap_or(0),
        ffn: rows("encoder.layers.0.mlp.dense_h_to_4h.weight").map(|rows| rows / halves),
        has_output_layer: tensors.contains_key(&key(0, cut.pipeline - 1, OUTPUT_LAYER)),
    }
}

impl std::fmt::Display for Rank {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "tensor rank {}, pipeline rank {}", self.tensor, self.pipeline)
    }
}
