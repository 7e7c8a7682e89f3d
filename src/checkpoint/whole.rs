//! A model and its checkpoint: weights read into a model, a model and its optimizer state written.

pub use super::manifest::Progress;
use super::manifest::{Header, Kind, Training};
use super::native::{Checkpoint, Error};
use super::opened::Opened;
use super::piecewise::{self, Owned};
use super::reshard::{model_file, optimizer_file};
use super::snapshot::Snapshot;
use super::source::{Source, read_f32};
use crate::layout::parameters::table;
use crate::layout::slice::Slice;
use crate::model::Model;
use crate::model::formats::Formats;
use crate::model::weights::Weights;
use crate::spec::architecture::Architecture;
use crate::spec::optimization::Degrees;
use candle_core::{DType, Device, Tensor};
use std::path::Path;

/// The model in the checkpoint at `path`, whatever program wrote it, in its own shape, in fp32 on the CPU.
pub fn load_model(path: &Path) -> Result<Model, Error> {
    load_model_to(path, Formats::uniform(DType::F32), &Device::Cpu)
}

/// The model in the checkpoint at `path`, in its own shape, in `formats` on `device`.
pub fn load_model_to(path: &Path, formats: Formats, device: &Device) -> Result<Model, Error> {
    let opened = Opened::open(path, None)?.whole()?;
    let architecture = opened.architecture();
    let values = read(opened.source(), architecture, Kind::Weight)?;
    let count = values.len();
    let values = Tensor::from_vec(values, count, &Device::Cpu)?;
    let weights = Weights::placed(architecture, &values, formats, device)?;
    Ok(Model::new(architecture, weights)?)
}

/// The model with these parameters, which follow each other in the table's order.
pub fn build(architecture: &Architecture, values: Vec<f32>) -> Result<Model, Error> {
    Ok(Model::new(architecture, Weights::new(architecture, values)?)?)
}

/// The parameters of a model of shape `wanted`, in the table's order.
pub fn read_weights(checkpoint: &Checkpoint, wanted: &Architecture) -> Result<Vec<f32>, Error> {
    check_shape(checkpoint.path(), &checkpoint.manifest().header.architecture, wanted)?;
    read(checkpoint, wanted, Kind::Weight)
}

/// The two moments of AdamW, each in the table's order.
pub fn read_moments(
    checkpoint: &Checkpoint,
    architecture: &Architecture,
) -> Result<[Vec<f32>; 2], Error> {
    let moment = |kind| read(checkpoint, architecture, kind);
    Ok([moment(Kind::FirstMoment)?, moment(Kind::SecondMoment)?])
}

/// A training state to be saved.
#[derive(Clone, Debug)]
pub struct State<'a> {
    /// The model.
    pub model: &'a Model,
    /// Its parameters `[elements]`, in fp32.
    pub parameters: &'a Tensor,
    /// AdamW's moments, `[elements]` each, if any.
    pub moments: Option<[&'a Tensor; 2]>,
    /// What training goes on with, if it does.
    pub training: Option<Training>,
}

/// Writes a model in fp32 as folder `target`, which must not exist; `moments` are AdamW's, if any.
pub fn save(
    target: &Path,
    model: &Model,
    progress: Progress,
    moments: Option<[&Tensor; 2]>,
) -> Result<(), Error> {
    let parameters = model.weights().values();
    save_state(target, &State { model, parameters, moments, training: None }, progress)
}

/// Writes a training state as folder `target`, which must not exist.
pub fn save_state(target: &Path, state: &State<'_>, progress: Progress) -> Result<(), Error> {
    let State { model, parameters, moments, training } = state;
    let header = Header {
        architecture: model.architecture().clone(),
        progress,
        layout: Degrees::SINGLE,
        training: training.clone(),
    };
    let holding = model.weights().holding();
    let all: Vec<_> = std::iter::once(0..holding.length()).collect();
    let weights = [Owned::new(Kind::Weight, *parameters, &all)];
    let mut files = vec![piecewise::copy(model_file(0), holding, &weights)?];
    if let Some([first, second]) = *moments {
        let moments = [
            Owned::new(Kind::FirstMoment, first, &all),
            Owned::new(Kind::SecondMoment, second, &all),
        ];
        files.push(piecewise::copy(optimizer_file(0), holding, &moments)?);
    }
    let files = files.into_iter().flatten().collect();
    Snapshot { header, files }.write(target).map(drop)
}

fn read(source: &dyn Source, architecture: &Architecture, kind: Kind) -> Result<Vec<f32>, Error> {
    let mut values = Vec::new();
    for parameter in table(architecture) {
        let (name, slice) = (kind.name(&parameter.name), Slice::whole(&parameter.shape));
        values.extend(read_f32(source, &name, &parameter, &slice)?);
    }
    Ok(values)
}

/// Refuses a checkpoint whose weights mean something else in a model of shape `wanted`.
pub fn check_shape(path: &Path, found: &Architecture, wanted: &Architecture) -> Result<(), Error> {
    // These say how training goes on, how positions are read or how the vocabulary is padded, and
    // not what the weights are.
    let free = Architecture {
        padded_vocab_size: wanted.padded_vocab_size,
        max_position_embeddings: wanted.max_position_embeddings,
        seq_len_interpolation_factor: wanted.seq_len_interpolation_factor,
        hidden_dropout: wanted.hidden_dropout,
        attention_dropout: wanted.attention_dropout,
        ffn_dropout: wanted.ffn_dropout,
        init_method_std: wanted.init_method_std,
        use_scaled_init_method: wanted.use_scaled_init_method,
        ..found.clone()
    };
    if free == *wanted {
        return Ok(());
    }
    let differences = differences(&free, wanted).join(", ");
    let reason = format!("its model is not the recipe's: {differences}");
    Err(Error::unusable(path, reason))
}

/// `num_layers is 4, the recipe says 8` for every field that differs.
fn differences(found: &Architecture, wanted: &Architecture) -> Vec<String> {
    let fields = |architecture: &Architecture| serde_json::to_value(architecture).ok();
    let (Some(found), Some(wanted)) = (fields(found), fields(wanted)) else { return Vec::new() };
    let Some(entries) = found.as_object() else { return Vec::new() };
    let differing = entries.iter().filter(|(key, value)| wanted[*key] != **value);
    differing
        .map(|(key, value)| format!("{key} is {value}, the recipe says {}", wanted[key]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::parameters::llama_7b;
    use crate::model::weights::start_values;

    fn tiny() -> Architecture {
        Architecture {
            num_layers: 2,
            hidden_size: 8,
            ffn_hidden_size: 12,
            num_attention_heads: 2,
            num_query_groups: 1,
            kv_channels: 4,
            vocab_size: 11,
            padded_vocab_size: 16,
            max_position_embeddings: 8,
            ..llama_7b()
        }
    }

    fn model() -> Model {
        let values = start_values::<f32>(&tiny(), 5);
        Model::new(&tiny(), Weights::new(&tiny(), values).unwrap()).unwrap()
    }

    #[test]
    fn weights_and_moments_come_back_to_the_bit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("checkpoint");
        let model = model();
        let first = (model.weights().values() * 2.0).unwrap();
        let second = (model.weights().values() * 3.0).unwrap();
        let progress = Progress { step: 7, consumed_samples: 56 };
        let (job, next_batch) = (serde_json::json!({"a": 1.5e-300}), None);
        let training = Training { seed: 3, job, next_batch, score: None, loss_scale: None };
        let state = State {
            model: &model,
            parameters: model.weights().values(),
            moments: Some([&first, &second]),
            training: Some(training.clone()),
        };
        save_state(&path, &state, progress).unwrap();
        let checkpoint = Checkpoint::open(&path).unwrap();
        let header = &checkpoint.manifest().header;
        assert_eq!((header.progress, &header.training), (progress, &Some(training)));
        let values = start_values::<f32>(&tiny(), 5);
        assert_eq!(read_weights(&checkpoint, &tiny()).unwrap(), values);
        let [first, second] = read_moments(&checkpoint, &tiny()).unwrap();
        let times = |factor: f32| values.iter().map(|value| value * factor).collect::<Vec<_>>();
        assert_eq!([first, second], [times(2.0), times(3.0)]);
        let loaded = load_model(&path).unwrap();
        assert_eq!(loaded.weights().values().to_vec1::<f32>().unwrap(), values);
    }

    #[test]
    fn another_model_is_refused_by_the_fields_that_differ() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("checkpoint");
        save(&path, &model(), Progress::default(), None).unwrap();
        let checkpoint = Checkpoint::open(&path).unwrap();
        let wanted = Architecture { num_query_groups: 2, hidden_dropout: 0.5, ..tiny() };
        let error = read_weights(&checkpoint, &wanted).unwrap_err().to_string();
        assert!(
            error.ends_with(
                "its model is not the recipe's: num_query_groups is 1, the recipe says 2"
            ),
            "{error}"
        );
        let dropped = Architecture { hidden_dropout: 0.5, ..tiny() };
        assert!(read_weights(&checkpoint, &dropped).is_ok());
    }
}
