//! What stages that read from a model are asked to do: evaluate and generate.

use super::choices::ChoiceSet;
use super::generation::Generation;
use super::job::TokenizerKind;
use super::metric::Metric;
use super::optimization::{Degrees, Precision};
use super::rows::Split;
use serde::{Deserialize, Serialize};

/// Inputs: `model` (a checkpoint), `data` (a tokenize output) or `choices` (rows of multiple choice,
/// with the tokenizer's files when none goes along with the model), `metrics.N.…` (files of metric
/// N). Output: `metrics.json`, `intervals.json`, `samples.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvaluateJob {
    /// `trainer` settings; left out for one rank in fp32, as in stages from before there were others.
    #[serde(default, skip_serializing_if = "ReadingTrainer::is_plain")]
    pub trainer: ReadingTrainer,
    /// `model` settings; left out when nothing is set, as before there were any.
    #[serde(default, skip_serializing_if = "TokenizerSettings::is_default")]
    pub model: TokenizerSettings,
    /// The stage's own settings.
    pub stage: EvaluateStage,
}

/// `trainer` settings of stages that only read from a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReadingTrainer {
    /// Ranks along each axis: without virtual stages and sequence parallelism, which are for training.
    pub degrees: Degrees,
    /// Number format of weights and of what is computed with them.
    #[serde(default = "fp32", skip_serializing_if = "is_fp32")]
    pub precision: Precision,
}

fn fp32() -> Precision {
    Precision::Fp32
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
fn is_fp32(precision: &Precision) -> bool {
    *precision == Precision::Fp32
}

impl ReadingTrainer {
    fn is_plain(&self) -> bool {
        *self == ReadingTrainer::default()
    }
}

impl Default for ReadingTrainer {
    fn default() -> ReadingTrainer {
        ReadingTrainer { degrees: Degrees::SINGLE, precision: Precision::Fp32 }
    }
}

/// evaluate's own settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvaluateStage {
    /// Which rows.
    pub split: Split,
    /// Which task's samples; none for all.
    pub task: Option<String>,
    /// At most so many samples, taken in the order of their hashes; none for all.
    pub limit: Option<usize>,
    /// What is computed.
    pub metrics: Vec<Metric>,
    /// How answers are generated.
    pub gen_kwargs: Generation,
    /// Rows of multiple choice in place of samples; none for samples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub choices: Option<ChoiceSet>,
}

/// Inputs: `model` (a checkpoint), `prompts` (JSONL) unless they stand in the recipe, the
/// tokenizer's files when none goes along with the model. Output: `generations.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenerateJob {
    /// `trainer` settings, as in [`EvaluateJob`].
    #[serde(default, skip_serializing_if = "ReadingTrainer::is_plain")]
    pub trainer: ReadingTrainer,
    /// `model` settings.
    pub model: TokenizerSettings,
    /// The stage's own settings.
    pub stage: GenerateStage,
}

/// `model` settings of stages that read text.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenizerSettings {
    /// Kind of the tokenizer in inputs `tokenizer.*`; none when one goes along with the model.
    pub tokenizer: Option<TokenizerKind>,
}

impl TokenizerSettings {
    fn is_default(&self) -> bool {
        *self == TokenizerSettings::default()
    }
}

/// generate's own settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenerateStage {
    /// Prompts from the recipe; empty when input `prompts` is given.
    pub prompts: Vec<String>,
    /// How text is generated.
    pub gen_kwargs: Generation,
}
