//! The model's shape and layout as jobs have them: every default filled in.

use super::outside::Facts;
use crate::recipe::path::Path;
use crate::recipe::problem::Problem;
use crate::recipe::{NamedStage, Settings};
use crate::spec::architecture::{Architecture, padded_vocab_size};
use crate::spec::optimization::{Degrees, Recompute};
use crate::spec::recipe::Model;
use crate::spec::recipe::choice::{Granularity, RecomputeMethod, TokenizerLibrary};

/// Ids of GPT-2's vocabulary, which NeMo's `GPT2BPETokenizer` reads.
const GPT2_VOCABULARY: usize = 50257;

/// The number of ids: the tokenizer's, or what the recipe lets one conclude while its files are
/// missing; none when nothing does.
pub(super) fn vocab_size(model: &Model, facts: &Facts) -> Option<usize> {
    let library = model.tokenizer.as_ref().and_then(|tokenizer| tokenizer.library);
    let gpt2 = (library == Some(TokenizerLibrary::Megatron)).then_some(GPT2_VOCABULARY);
    facts.vocab_size.or(model.padded_vocab_size).or(gpt2)
}

/// Ranks along each axis for a stage.
pub(super) fn degrees(settings: &Settings) -> Degrees {
    settings.model.degrees(&settings.trainer)
}

/// The shape that the settings of `stage` describe.
///
/// A vocabulary that is not known (see [`vocab_size`]) counts as empty; the tokenizer is then among
/// the things that a run lacks.
pub(super) fn architecture(
    stage: &NamedStage,
    facts: &Facts,
) -> Result<Architecture, Box<Problem>> {
    let model = &stage.settings.model;
    let vocab_size = vocab_size(model, facts).unwrap_or(0);
    let divisor = model.make_vocab_size_divisible_by.unwrap_or(128);
    let tensor = degrees(&stage.settings).tensor;
    let padded = match model.padded_vocab_size {
        Some(given) => given_vocabulary(given, vocab_size, tensor)?,
        None => padded_vocab_size(vocab_size, divisor, tensor),
    };
    model.architecture(vocab_size, padded).map_err(|key| lacking(model, key))
}

/// `model.padded_vocab_size`, if it has a row for every id and can be split over the tensor ranks.
fn given_vocabulary(given: usize, ids: usize, tensor: usize) -> Result<usize, Box<Problem>> {
    let message = if given < ids {
        format!("the tokenizer has {ids} ids, `model.padded_vocab_size` only {given} rows")
    } else if !given.is_multiple_of(tensor) {
        format!("`model.padded_vocab_size` {given} cannot be split over {tensor} tensor ranks")
    } else {
        return Ok(given);
    };
    let help = "remove it: the rows follow from the tokenizer and make_vocab_size_divisible_by";
    let path = Path::default().key("model").key("padded_vocab_size");
    Err(Box::new(Problem::error("plan::shape", message).about(path).help(help)))
}

/// Tokens per sequence.
pub(super) fn sequence_length(model: &Model) -> Result<usize, Box<Problem>> {
    model.sequence_length().ok_or_else(|| lacking(model, "encoder_seq_length"))
}

/// What the backward pass computes again.
pub(super) fn recompute(model: &Model) -> Recompute {
    let layers = model.activations_checkpoint_num_layers.unwrap_or(1) as usize;
    let method = model.activations_checkpoint_method.unwrap_or(RecomputeMethod::Uniform);
    match (model.activations_checkpoint_granularity, method) {
        (None, _) => Recompute::None,
        (Some(Granularity::Selective), _) => Recompute::Selective,
        (Some(Granularity::Full), RecomputeMethod::Uniform) => Recompute::Uniform(layers),
        (Some(Granularity::Full), RecomputeMethod::Block) => Recompute::Block(layers),
    }
}

/// A setting of the shape that is neither given nor a default, or names what is not built.
fn lacking(model: &Model, key: &str) -> Box<Problem> {
    let given = model.missing_shape();
    let message = match given.as_slice() {
        [] => format!("`model.{key}` names a form that is not built"),
        missing => format!("the model's shape needs `model.{}`", missing.join("`, `model.")),
    };
    let path = Path::default().key("model").key(key);
    Box::new(Problem::error("plan::shape", message).about(path))
}
