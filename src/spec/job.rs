//! What one stage is asked to do: its settings, apart from where its inputs lie.
//!
//! A job holds every setting that can change the stage's output and nothing else; its canonical
//! JSON is what the fingerprint hashes. Settings that come from the recipe's `trainer` and `model`
//! sections stand at the same path here (`model.optim.lr` is `/model/optim/lr`), settings of the
//! stage's own stand under `stage`, so that a changed value can be traced to its line.
//! Inputs are named here (`rows.0`, `tokenizer.model`, `data`, `model`) and located by the runner.

use super::architecture::Architecture;
pub use super::choices::ChoiceSet;
use super::optimization::{Degrees, LossScaling, Optimizer, Precision, Recompute};
pub use super::reading::{
    EvaluateJob, EvaluateStage, GenerateJob, GenerateStage, ReadingTrainer, TokenizerSettings,
};
pub use super::rows::{DataSource, Format, RowSource, Split, SplitRule, Task};
use serde::{Deserialize, Serialize};

pub use super::watched::{EarlyStopping, Keep, Monitor, NemoFile};
use serde_json::Value;

/// Folder in the output of interrupted work that holds what the work goes on from.
pub const RESUME_FOLDER: &str = "resume";

/// A stage's work.
#[expect(clippy::large_enum_variant, reason = "a plan holds a handful of them")]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Job {
    /// Rows to token ids with a loss mask.
    Tokenize(TokenizeJob),
    /// Token ids to training sequences.
    Shard(ShardJob),
    /// A checkpoint, or fresh weights.
    Load(LoadJob),
    /// Fine-tuning.
    Train(TrainJob),
    /// Metrics of a model on held-out rows.
    Evaluate(EvaluateJob),
    /// Text from prompts.
    Generate(GenerateJob),
}

impl Job {
    /// The kind as it stands in the recipe.
    pub fn kind(&self) -> &'static str {
        match self {
            Job::Tokenize(_) => "tokenize",
            Job::Shard(_) => "shard",
            Job::Load(_) => "load",
            Job::Train(_) => "train",
            Job::Evaluate(_) => "evaluate",
            Job::Generate(_) => "generate",
        }
    }

    /// Ranks along each axis; none for a stage that computes on no device.
    pub fn degrees(&self) -> Option<&Degrees> {
        match self {
            Job::Tokenize(_) | Job::Shard(_) | Job::Load(_) => None,
            Job::Train(job) => Some(&job.trainer.degrees),
            Job::Evaluate(job) => Some(&job.trainer.degrees),
            Job::Generate(job) => Some(&job.trainer.degrees),
        }
    }

    /// Version of the stage's output and computation; raised when either changes.
    pub fn version(&self) -> u32 {
        match self {
            // 2: a trace of every step's bits. 3: checkpoints of version 2. 4: long sums are cut at 512.
            // 5: tensor ranks on GPUs merge the softmax there, in fp32.
            Job::Train(_) => 5,
            // Load's 2: checkpoints of version 2. 3: Megatron-LM's files without a version have the old
            // order. Evaluate's 2: long sums are cut at 512. 3: as training's 5.
            Job::Load(_) | Job::Evaluate(_) => 3,
            // 2: long sums are cut at 512.
            Job::Generate(_) => 2,
            _ => 1,
        }
    }
}

/// Inputs: `rows.N` files, `tokenizer.model` or `tokenizer.vocab_file` and `tokenizer.merge_file`.
/// Output: `train`, `validation` and `test` token files (`.bin`, `.idx`, `.mask`, a sequence per
/// sample), `NAME.samples.jsonl` beside each (task, prompt, expected answer), and `tokenizer/`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenizeJob {
    /// `model` settings.
    pub model: TokenizeModel,
    /// The stage's own settings.
    pub stage: TokenizeStage,
}

/// `model` settings of tokenize.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenizeModel {
    /// Kind of tokenizer.
    pub tokenizer: TokenizerKind,
    /// The chat template in place of the tokenizer's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chat_template: Option<String>,
    /// Longest sample in tokens, prompt and answer together (`model.encoder_seq_length`).
    pub encoder_seq_length: usize,
}

/// What the tokenizer's files are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenizerKind {
    /// GPT-2's `vocab.json` and `merges.txt`.
    Gpt2Bpe,
    /// A Hugging Face `tokenizer.json` (or a folder that holds one).
    HuggingFace,
    /// A SentencePiece `.model`.
    SentencePiece,
}

/// tokenize's own settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenizeStage {
    /// Row files in order; source N reads input `rows.N`.
    pub sources: Vec<RowSource>,
}

/// Input: `data` (a tokenize output). Output: a token file per split in which a document is one
/// training sequence and its sequences are the samples packed into it; `tokenizer/` goes along.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardJob {
    /// `model` settings.
    pub model: ShardModel,
    /// The stage's own settings.
    pub stage: ShardStage,
}

/// `model` settings of shard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardModel {
    /// Tokens per training sequence (`model.encoder_seq_length`).
    pub encoder_seq_length: usize,
    /// Seed of the order in which samples are packed.
    pub seed: u64,
}

/// shard's own settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardStage {
    /// Put several short samples into one sequence.
    pub packing: bool,
}

/// Input: `checkpoint` when weights are restored, else none. Output: a native checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoadJob {
    /// `model` settings.
    pub model: LoadModel,
    /// The stage's own settings; left out when they are the defaults, so that stages from before
    /// there were any keep their fingerprints.
    #[serde(default, skip_serializing_if = "LoadStage::is_default")]
    pub stage: LoadStage,
}

/// load's own settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoadStage {
    /// Whether a checkpoint that lacks something, or has something too many, is an error.
    pub strict: bool,
}

impl LoadStage {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
    fn is_default(&self) -> bool {
        *self == LoadStage::default()
    }
}

impl Default for LoadStage {
    fn default() -> LoadStage {
        LoadStage { strict: true }
    }
}

/// `model` settings of load.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoadModel {
    /// The shape.
    pub architecture: Architecture,
    /// Seed of the start values, when no checkpoint is restored.
    pub seed: u64,
    /// Whether input `checkpoint` is given.
    pub restore: bool,
    /// Whether it has the old order of queries, keys and values, if nothing in it says; not written
    /// down when not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub megatron_legacy: bool,
}

/// Inputs: `data` (a shard output) or `prefix.N` files, `model` and `resume` (checkpoints).
/// Output: `checkpoint/`, `metrics.jsonl`, `model.nemo`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainJob {
    /// `model` settings.
    pub model: TrainModel,
    /// `trainer` settings.
    pub trainer: TrainTrainer,
    /// The stage's own settings.
    pub stage: TrainStage,
}

/// `model` settings of train.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainModel {
    /// The shape.
    pub architecture: Architecture,
    /// Tokens per training sequence.
    pub encoder_seq_length: usize,
    /// Sequences per step over all replicas.
    pub global_batch_size: usize,
    /// Sequences per forward pass.
    pub micro_batch_size: usize,
    /// Seed of the data order and of dropout.
    pub seed: u64,
    /// The optimizer.
    pub optim: Optimizer,
    /// fp32 masters and main gradients beside half-precision parameters.
    #[serde(rename = "megatron_amp_O2")]
    pub megatron_amp_o2: bool,
    /// What the backward pass computes again. It is no part of the job's JSON form, and so of no
    /// fingerprint: it changes no bit of the result, and a run that did not fit goes on with another.
    #[serde(skip)]
    pub recompute: Recompute,
    /// fp16's loss scale; none in other formats.
    pub loss_scaling: Option<LossScaling>,
    /// Patterns of the parameters that are frozen ([`crate::layout`] has the rule).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub frozen: Vec<String>,
    /// Settings of the data.
    pub data: TrainData,
}

/// `model.data` settings of train.
#[expect(clippy::struct_excessive_bools, reason = "they are NeMo's keys")]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainData {
    /// Where sequences come from.
    pub source: DataSource,
    /// Restart positions after each end-of-document token (token streams).
    pub reset_position_ids: bool,
    /// Attend within documents only (token streams).
    pub reset_attention_mask: bool,
    /// Do not learn from positions whose input is the end-of-document token.
    pub eod_mask_loss: bool,
    /// Shuffle the sequences of each epoch.
    pub shuffle: bool,
}

/// `trainer` settings of train.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainTrainer {
    /// Optimizer steps.
    pub max_steps: u64,
    /// Steps between validations; 0 for none.
    pub val_check_interval: u64,
    /// Global batches per validation; none for the whole split.
    pub limit_val_batches: Option<u64>,
    /// Largest gradient norm; 0 leaves gradients as they are.
    pub gradient_clip_val: f64,
    /// Number format.
    pub precision: Precision,
    /// Ranks along each axis.
    pub degrees: Degrees,
    /// Steps between lines of metrics.
    pub log_every_n_steps: u64,
}

/// train's own settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainStage {
    /// Steps between checkpoints for resuming; 0 keeps only the last.
    pub checkpoint_every: u64,
    /// Which of them are kept beside the last; none when the recipe asks for none.
    #[serde(default)]
    pub keep: Option<Keep>,
    /// What is measured at each validation, on samples of input `validate.data`; its metrics' files
    /// are inputs `validate.metrics.N.…`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validate: Option<EvaluateStage>,
    /// When training stops before its last step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub early_stopping: Option<EarlyStopping>,
    /// The `.nemo` file that is written at the end, if one is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nemo: Option<NemoFile>,
}

impl TrainJob {
    /// The settings that decide what comes out, as JSON: without those that only say when
    /// something is logged, or saved for resuming.
    pub fn decisive(&self) -> Value {
        let mut settings = serde_json::to_value(self).unwrap_or_default();
        let mut leave_out = |section: &str, key: &str| {
            settings[section].as_object_mut().and_then(|map| map.remove(key));
        };
        leave_out("trainer", "log_every_n_steps");
        if self.stage.keep.is_none() {
            leave_out("stage", "checkpoint_every");
        }
        settings
    }
}

impl ShardJob {
    /// The settings that decide what comes out, as JSON: the seed only orders what is packed.
    pub fn decisive(&self) -> Value {
        let mut settings = serde_json::to_value(self).unwrap_or_default();
        if !self.stage.packing {
            settings["model"].as_object_mut().and_then(|map| map.remove("seed"));
        }
        settings
    }
}
