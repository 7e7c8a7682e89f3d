//! `manifest.json`: what a native checkpoint holds, piece by piece, each with its hash.
//!
//! Version 1: whole tensors in `model.safetensors` and `optimizer.safetensors`.
//! Version 2: pieces in files of the ranks that wrote them, number formats, the vocabulary without
//! its padding, facts of the training, a hash of the manifest itself.

use super::error::Error;
use crate::base::canonical_json;
use crate::base::digest::Digest;
use crate::layout::slice::Slice;
use crate::spec::architecture::Architecture;
use crate::spec::optimization::{Degrees, LossScale};
use safetensors::Dtype;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// The version that this program writes and reads.
pub const VERSION: u32 = 2;
/// What the manifest says it is.
pub const FORMAT: &str = "sft-run checkpoint";
/// Its name in the checkpoint's folder.
pub const FILE: &str = "manifest.json";

/// The content of `manifest.json`, beside `format`, `version` and `blake3`, the hash of all else.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// What the checkpoint is, apart from its tensors.
    pub header: Header,
    /// Tensors by name: parameters, and with the prefixes of [`Kind`] the optimizer's state.
    pub tensors: BTreeMap<String, TensorEntry>,
    /// Bytes of each file.
    pub files: BTreeMap<String, u64>,
}

/// What a checkpoint is, apart from its tensors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// The model's shape.
    pub architecture: Architecture,
    /// Where training stands.
    pub progress: Progress,
    /// The layout of the ranks that wrote it; any layout can read it.
    pub layout: Degrees,
    /// What training goes on with; none for weights that were loaded or converted.
    pub training: Option<Training>,
}

impl Header {
    /// Patterns of the parameters that the training had frozen, which have no optimizer state.
    pub fn frozen(&self) -> Vec<String> {
        let training = self.training.as_ref();
        let patterns = training.and_then(|training| training.job["model"]["frozen"].as_array());
        let texts = patterns.into_iter().flatten().filter_map(Value::as_str);
        texts.map(str::to_owned).collect()
    }
}

/// Where training stands; with the seed this decides everything that comes next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// Optimizer steps done.
    pub step: u64,
    /// Sequences consumed.
    pub consumed_samples: u64,
}

/// What training goes on with, beside tensors and progress.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Training {
    /// The seed: all random numbers are addressed by seed, name and position, so that there is no
    /// other state of a generator.
    pub seed: u64,
    /// The resolved settings of the training.
    pub job: Value,
    /// Hash of the sequences of the next step, against which the data is held when training goes
    /// on; none at the end.
    pub next_batch: Option<Digest>,
    /// The number by which checkpoints of this training are ranked, if they are.
    pub score: Option<f64>,
    /// The loss scale of fp16.
    pub loss_scale: Option<LossScale>,
}

/// One tensor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TensorEntry {
    /// Its shape as a whole; the vocabulary's without padding rows.
    pub shape: Vec<usize>,
    /// Number format.
    pub dtype: Dtype,
    /// Its pieces, which together are the whole.
    pub pieces: Vec<PieceEntry>,
}

/// A piece of a tensor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PieceEntry {
    /// The safetensors file that holds it.
    pub file: String,
    /// Its name in the file.
    pub key: String,
    /// Which part it is; none for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slice: Option<Slice>,
    /// BLAKE3 of its bytes (little-endian, row-major).
    pub blake3: Digest,
}

/// What a tensor is to training, told from its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A parameter; in training the fp32 original of a half-precision one.
    Weight,
    /// AdamW's mean of gradients.
    FirstMoment,
    /// AdamW's mean of squared gradients.
    SecondMoment,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 3] = [Kind::Weight, Kind::FirstMoment, Kind::SecondMoment];

    /// What stands before the parameter's name.
    pub fn prefix(self) -> &'static str {
        match self {
            Kind::Weight => "",
            Kind::FirstMoment => "first_moment.",
            Kind::SecondMoment => "second_moment.",
        }
    }

    /// The name of this tensor of the parameter called `parameter`.
    pub fn name(self, parameter: &str) -> String {
        format!("{}{parameter}", self.prefix())
    }

    /// What the tensor called `name` is, and the name of its parameter.
    pub fn of(name: &str) -> (Kind, &str) {
        let state = Kind::ALL[1..].iter();
        let mut found = state.filter_map(|kind| Some((*kind, name.strip_prefix(kind.prefix())?)));
        found.next().unwrap_or((Kind::Weight, name))
    }
}

impl Manifest {
    /// The text of the file.
    pub(super) fn text(&self) -> Result<String, serde_json::Error> {
        let mut value = serde_json::to_value(self)?;
        value["format"] = FORMAT.into();
        value["version"] = VERSION.into();
        value["blake3"] = hash(&value).to_string().into();
        Ok(format!("{value:#}\n"))
    }

    /// Reads the manifest of the checkpoint in `folder`.
    pub(super) fn read(folder: &Path) -> Result<Manifest, Error> {
        let path = folder.join(FILE);
        let bytes = fs::read(&path).map_err(Error::io("read", &path))?;
        Manifest::parse(&bytes).map_err(|reason| Error::unusable(folder, reason))
    }

    fn parse(bytes: &[u8]) -> Result<Manifest, String> {
        let damaged = |error: String| format!("{FILE} is damaged ({error})");
        let mut value: Value =
            serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))?;
        if value["format"] != FORMAT {
            return Err(format!("{FILE} does not say `\"format\": \"{FORMAT}\"`"));
        }
        if value["version"] != VERSION {
            let found = &value["version"];
            return Err(format!(
                "its version is {found}, this program reads version {VERSION}: \
                 make it again with this program, or use the program that wrote it"
            ));
        }
        let map = value.as_object_mut().ok_or_else(|| damaged("it is not a mapping".to_owned()))?;
        let told = map.remove("blake3");
        if told.as_ref().and_then(Value::as_str) != Some(&hash(&value).to_string()) {
            return Err(damaged("its hash differs from what it says".to_owned()));
        }
        if let Some(map) = value.as_object_mut() {
            map.remove("format");
            map.remove("version");
        }
        serde_json::from_value(value).map_err(|error| damaged(error.to_string()))
    }
}

fn hash(value: &Value) -> Digest {
    Digest::of_bytes(canonical_json::to_string(value).as_bytes())
}
