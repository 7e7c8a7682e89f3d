//! A model and its checkpoint: weights read into a model, a model and its optimizer state written.

use super::manifest::Progress;
use super::native::{self, Checkpoint, Content, Error, NamedTensor, Part};
use crate::layout::parameters::table;
use crate::model::Model;
use crate::model::weights::Weights;
use crate::spec::architecture::Architecture;
use candle_core::Tensor;
use std::path::Path;

/// The model in the checkpoint at `path`, in its own shape.
pub fn load_model(path: &Path) -> Result<Model, Error> {
    let checkpoint = Checkpoint::open(path)?;
    let architecture = &checkpoint.manifest().architecture;
    build(architecture, read_weights(&checkpoint, architecture)?)
}

/// The model with these parameters, which follow each other in the table's order.
pub fn build(architecture: &Architecture, values: Vec<f32>) -> Result<Model, Error> {
    Ok(Model::new(architecture, Weights::new(architecture, values)?)?)
}

/// The parameters of a model of shape `wanted`, in the table's order.
pub fn read_weights(checkpoint: &Checkpoint, wanted: &Architecture) -> Result<Vec<f32>, Error> {
    check_shape(checkpoint, wanted)?;
    read(checkpoint, Part::Model, &shapes(wanted, ""))
}

/// The two moments of AdamW, each in the table's order.
pub fn read_moments(
    checkpoint: &Checkpoint,
    architecture: &Architecture,
) -> Result<[Vec<f32>; 2], Error> {
    let [first, second] = MOMENTS.map(|prefix| shapes(architecture, prefix));
    let mut first_moment = read(checkpoint, Part::Optimizer, &[first, second].concat())?;
    let second_moment = first_moment.split_off(first_moment.len() / 2);
    Ok([first_moment, second_moment])
}

/// Names of the moments' tensors: these before the parameter's name.
const MOMENTS: [&str; 2] = ["first_moment.", "second_moment."];

/// A training state to be saved.
#[derive(Clone, Copy, Debug)]
pub struct State<'a> {
    /// The model.
    pub model: &'a Model,
    /// Its parameters `[elements]` in fp32: the optimizer's masters, if there are any.
    pub parameters: &'a Tensor,
    /// AdamW's moments, if any.
    pub moments: Option<[&'a Tensor; 2]>,
}

/// Writes a model in fp32 as folder `target`, which must not exist; `moments` are AdamW's, if any.
pub fn save(
    target: &Path,
    model: &Model,
    progress: Progress,
    moments: Option<[&Tensor; 2]>,
) -> Result<(), Error> {
    save_state(target, &State { model, parameters: model.weights().values(), moments }, progress)
}

/// Writes a training state as folder `target`, which must not exist.
pub fn save_state(target: &Path, state: &State<'_>, progress: Progress) -> Result<(), Error> {
    let State { model, parameters, moments } = *state;
    let values: Vec<f32> = parameters.to_vec1()?;
    let moments = moments.map(|moments| moments.map(Tensor::to_vec1::<f32>));
    let moments = match moments {
        Some([first, second]) => vec![(MOMENTS[0], first?), (MOMENTS[1], second?)],
        None => Vec::new(),
    };
    let optimizer =
        moments.iter().flat_map(|(prefix, values)| named(model.weights(), prefix, values));
    let content = Content {
        architecture: model.architecture(),
        progress,
        model: named(model.weights(), "", &values),
        optimizer: optimizer.collect(),
    };
    native::save(target, &content)
}

fn named<'a>(weights: &Weights, prefix: &str, values: &'a [f32]) -> Vec<NamedTensor<'a>> {
    let tensor = |(parameter, range): (&crate::layout::parameters::Parameter, _)| NamedTensor {
        name: format!("{prefix}{}", parameter.name),
        shape: parameter.shape.clone(),
        values: &values[range],
    };
    weights.parameters().map(tensor).collect()
}

fn shapes(architecture: &Architecture, prefix: &str) -> Vec<(String, Vec<usize>)> {
    let named = table(architecture).into_iter();
    named.map(|parameter| (format!("{prefix}{}", parameter.name), parameter.shape)).collect()
}

fn read(
    checkpoint: &Checkpoint,
    part: Part,
    expected: &[(String, Vec<usize>)],
) -> Result<Vec<f32>, Error> {
    let mut values = Vec::new();
    checkpoint.read(part, expected, |_, bytes| {
        let numbers = bytes.as_chunks::<4>().0.iter();
        values.extend(numbers.map(|bytes| f32::from_le_bytes(*bytes)));
    })?;
    Ok(values)
}

/// Refuses a checkpoint whose weights mean something else in a model of shape `wanted`.
fn check_shape(checkpoint: &Checkpoint, wanted: &Architecture) -> Result<(), Error> {
    let found = &checkpoint.manifest().architecture;
    // These say how training goes on, or how positions are read, and not what the weights are.
    let free = Architecture {
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
    Err(Error::Unusable {
        path: checkpoint.folder().to_owned(),
        reason: format!("its model is not the recipe's: {differences}"),
    })
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
        save(&path, &model, progress, Some([&first, &second])).unwrap();
        let checkpoint = Checkpoint::open(&path).unwrap();
        assert_eq!(checkpoint.manifest().progress, progress);
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
