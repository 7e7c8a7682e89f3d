//! The recipe's `stages` section: `name: {kind: {settings}}`, in the order of the file.

use super::choice::TruncationMethod;
use super::choices::Choices;
use super::inference::GenKwargs;
use super::metric::MetricChoice;
use super::model::Model;
use super::trainer::Trainer;
use crate::spec::job::Split;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, Visitor};
use std::borrow::Cow;
use std::fmt;

/// Stages by name, in the order of the file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stages(pub Vec<(String, Stage)>);

/// One stage: its kind and its settings.
#[derive(Clone, Debug, PartialEq)]
pub enum Stage {
    /// Rows to token ids.
    Tokenize(Tokenize),
    /// Token ids to training sequences.
    Shard(Shard),
    /// A checkpoint, or fresh weights.
    Load(Load),
    /// Fine-tuning.
    Train(Train),
    /// Metrics on held-out rows.
    Evaluate(Evaluate),
    /// Text from prompts.
    Generate(Generate),
}

impl Stage {
    /// All kinds, in the order of work.
    pub const KINDS: [&'static str; 6] =
        ["tokenize", "shard", "load", "train", "evaluate", "generate"];

    /// The kind as the recipe says it.
    pub fn kind(&self) -> &'static str {
        match self {
            Stage::Tokenize(_) => "tokenize",
            Stage::Shard(_) => "shard",
            Stage::Load(_) => "load",
            Stage::Train(_) => "train",
            Stage::Evaluate(_) => "evaluate",
            Stage::Generate(_) => "generate",
        }
    }
}

/// Rows to token ids.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tokenize {
    /// Row files, in order.
    pub sources: Vec<Source>,
}

/// One file of rows and what is made of them.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// A JSONL file; each line is a row.
    pub rows: String,
    /// Which split a row goes to: one split's name, or `{by: FIELD, validation: SHARE, test: SHARE}`. Default: train.
    #[serde(default)]
    pub split: SplitChoice,
    /// The samples made of each row.
    pub tasks: Vec<Task>,
}

/// Which split a row goes to.
#[derive(Clone, Debug, PartialEq)]
pub enum SplitChoice {
    /// All rows to one.
    All(Split),
    /// By the hash of a field, so that equal values never stand on two sides.
    By(SplitBy),
}

impl Default for SplitChoice {
    fn default() -> Self {
        SplitChoice::All(Split::Train)
    }
}

/// A split by the hash of a field.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SplitBy {
    /// The field whose value decides.
    pub by: String,
    /// Share of the validation split. Default: 0.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1))]
    pub validation: f64,
    /// Share of the test split. Default: 0.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1))]
    pub test: f64,
}

impl<'de> Deserialize<'de> for SplitChoice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_yaml::Value::deserialize(deserializer)?;
        let parsed = if value.is_mapping() {
            serde_yaml::from_value(value).map(SplitChoice::By)
        } else {
            serde_yaml::from_value(value).map(SplitChoice::All)
        };
        parsed.map_err(Error::custom)
    }
}

impl JsonSchema for SplitChoice {
    fn schema_name() -> Cow<'static, str> {
        "SplitChoice".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let names: Vec<_> = Split::ALL.iter().map(|split| split.name()).collect();
        let by = SplitBy::json_schema(generator);
        json_schema!({"anyOf": [{"type": "string", "enum": names}, by]})
    }

    fn inline_schema() -> bool {
        true
    }
}

/// What a task's `chat_template` says for the template of the tokenizer.
pub const TOKENIZERS_TEMPLATE: &str = "tokenizer";

/// One kind of sample made of a row. It says `prompt` and `answer` (minijinja over the row's
/// fields), or `text` (a field, all of it learned), or `prompt_template` (NeMo's form), or
/// `chat_template` (a conversation; the assistant's turns are learned).
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Task {
    /// Its name, by which evaluation selects it. Default: `default`.
    pub name: Option<String>,
    /// Share of the rows that give such a sample, by the hash of the row. Default: 1.
    #[schemars(range(min = 0, max = 1))]
    pub share: Option<f64>,
    /// Template of the prompt.
    pub prompt: Option<String>,
    /// Template of the answer.
    pub answer: Option<String>,
    /// Field that is the whole text.
    pub text: Option<String>,
    /// NeMo's template, such as `{input} {output}`; the answer comes last.
    pub prompt_template: Option<String>,
    /// A Hugging Face chat template, or `tokenizer` for `model.tokenizer.chat_template`, or else the
    /// one that comes with the tokenizer.
    pub chat_template: Option<String>,
    /// Field of the conversation, a list of `{role, content}` or `{from, value}`. Default: messages.
    pub messages: Option<String>,
    /// The day that a chat template sees as today, such as 2024-07-26. Default: none, and the
    /// template does without.
    pub date: Option<String>,
    /// Field of the answer in NeMo's template. Default: output.
    pub label_key: Option<String>,
    /// Fields that are cut when a sample is too long, with commas between. Default: none.
    pub truncation_field: Option<String>,
    /// Which end is cut. Default: right.
    pub truncation_method: Option<TruncationMethod>,
    /// Room kept for the answer when prompts are cut (NeMo's template). Default: 0.
    pub tokens_to_generate: Option<usize>,
    /// Learn from the answer only. Default: true, but false for `text`.
    pub answer_only_loss: Option<bool>,
    /// Start with the beginning-of-sequence token. Default: false.
    pub add_bos: Option<bool>,
    /// End with the end-of-sequence token, which is learned. Default: true, but false for
    /// `chat_template`, which writes its own ends.
    pub add_eos: Option<bool>,
}

impl Task {
    /// The name by which evaluation selects its samples.
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or("default")
    }
}

/// Token ids to training sequences.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Shard {
    /// The tokenize stage whose output is read.
    pub data: String,
    /// Put several short samples into one sequence; none sees another. Default: false.
    pub packing: Option<bool>,
}

/// Fresh weights, or those of `restore_from_path`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Load {
    /// A checkpoint. Default: the recipe's `restore_from_path`; without one, weights start fresh.
    pub restore_from_path: Option<String>,
    /// A checkpoint that lacks a parameter, or has one too many, is an error. Default: true;
    /// otherwise what is missing starts fresh, and both are listed.
    pub strict: Option<bool>,
}

/// Fine-tuning.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Train {
    /// The shard stage whose output is learned from. Default: the files of `model.data.data_prefix`.
    pub data: Option<String>,
    /// The load or train stage that gives the weights.
    pub model: String,
    /// Steps between checkpoints for resuming. Default: 0, only at the end.
    pub checkpoint_every: Option<u64>,
    /// Metrics of generated answers at each validation, logged as `val_metrics/avg_NAME`.
    pub validate: Option<Validate>,
    /// Settings of this stage alone, merged over the recipe's `trainer` and `model`.
    #[serde(rename = "with")]
    pub overlay: Option<Overlay>,
}

/// What is measured at each validation of a train stage.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Validate {
    /// The tokenize stage that gives the samples.
    pub data: String,
    /// Which split. Default: validation.
    pub split: Option<Split>,
    /// Only samples of this task. Default: all.
    pub task: Option<String>,
    /// At most so many samples. Default: 64.
    #[schemars(range(min = 1))]
    pub limit: Option<usize>,
    /// What is computed: names of metrics, and metrics of one's own.
    pub metrics: Vec<MetricChoice>,
    /// How answers are generated.
    pub gen_kwargs: Option<GenKwargs>,
}

impl Validate {
    /// The same as the settings of an evaluate stage, which has another default split and limit.
    pub fn as_evaluate(&self) -> Evaluate {
        Evaluate {
            model: String::new(),
            data: Some(self.data.clone()),
            choices: None,
            split: Some(self.split.unwrap_or(Split::Validation)),
            task: self.task.clone(),
            limit: Some(self.limit.unwrap_or(64)),
            metrics: self.metrics.clone(),
            gen_kwargs: self.gen_kwargs.clone(),
        }
    }
}

/// Settings of one stage, merged over the recipe's.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Overlay {
    /// Over `trainer`.
    pub trainer: Option<Trainer>,
    /// Over `model`.
    pub model: Option<Box<Model>>,
}

/// Metrics on held-out rows.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Evaluate {
    /// The load or train stage that gives the weights.
    pub model: String,
    /// The tokenize stage that gives the samples.
    pub data: Option<String>,
    /// Multiple choice, in place of `data`: metrics `acc` and `acc_norm`.
    pub choices: Option<Choices>,
    /// Which split. Default: test.
    pub split: Option<Split>,
    /// Only samples of this task. Default: all.
    pub task: Option<String>,
    /// At most so many samples. Default: all.
    #[schemars(range(min = 1))]
    pub limit: Option<usize>,
    /// What is computed: names of metrics, and metrics of one's own.
    pub metrics: Vec<MetricChoice>,
    /// How answers are generated.
    pub gen_kwargs: Option<GenKwargs>,
}

/// Text from prompts.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Generate {
    /// The load or train stage that gives the weights.
    pub model: String,
    /// The prompts.
    pub prompts: Option<Vec<String>>,
    /// A JSONL file of prompts: `{"prompt": …}` per line.
    pub prompts_file: Option<String>,
    /// How text is generated.
    pub gen_kwargs: Option<GenKwargs>,
}

impl<'de> Deserialize<'de> for Stages {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Stages;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a mapping of stages by name")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Stages, A::Error> {
                let entries = std::iter::from_fn(|| map.next_entry().transpose());
                entries.collect::<Result<_, _>>().map(Stages)
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

impl<'de> Deserialize<'de> for Stage {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Kind;
        impl<'de> Visitor<'de> for Kind {
            type Value = Stage;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, "one kind of stage: {}", Stage::KINDS.join(", "))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Stage, A::Error> {
                let kind: Option<String> = map.next_key()?;
                let stage = match kind.as_deref() {
                    Some("tokenize") => Stage::Tokenize(map.next_value()?),
                    Some("shard") => Stage::Shard(map.next_value()?),
                    Some("load") => Stage::Load(map.next_value()?),
                    Some("train") => Stage::Train(map.next_value()?),
                    Some("evaluate") => Stage::Evaluate(map.next_value()?),
                    Some("generate") => Stage::Generate(map.next_value()?),
                    Some(other) => return Err(Error::unknown_variant(other, &Stage::KINDS)),
                    None => return Err(Error::invalid_length(0, &self)),
                };
                match map.next_key::<String>()? {
                    None => Ok(stage),
                    Some(_) => Err(Error::custom("a stage has one kind")),
                }
            }
        }
        deserializer.deserialize_map(Kind)
    }
}

impl JsonSchema for Stages {
    fn schema_name() -> Cow<'static, str> {
        "Stages".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let stage = generator.subschema_for::<Stage>();
        json_schema!({"type": "object", "additionalProperties": stage})
    }
}

impl JsonSchema for Stage {
    fn schema_name() -> Cow<'static, str> {
        "Stage".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "One stage: its kind is the key.",
            "type": "object",
            "properties": {
                "tokenize": generator.subschema_for::<Tokenize>(),
                "shard": generator.subschema_for::<Shard>(),
                "load": generator.subschema_for::<Load>(),
                "train": generator.subschema_for::<Train>(),
                "evaluate": generator.subschema_for::<Evaluate>(),
                "generate": generator.subschema_for::<Generate>(),
            },
            "additionalProperties": false,
            "minProperties": 1,
            "maxProperties": 1
        })
    }
}
