//! The recipe as typed data: NeMo's sections with NeMo's names, and a few top-level keys of ours.
//!
//! Every setting is an `Option`, because a recipe may leave it out; what stands in its place is
//! said in its description and computed in [`defaults`]. The JSON Schemas are made from these types.

pub mod choice;
pub mod choices;
pub mod data;
pub mod defaults;
pub mod exp_manager;
pub mod inference;
pub mod metric;
pub mod model;
pub mod notify;
pub mod optim;
pub mod peft;
pub mod stage;
pub mod sweep;
pub mod tokenizer;
pub mod trainer;
pub mod union;
pub mod verify;

pub use choice::{Accelerator, Compat, PrecisionName};
pub use choices::Choices;
pub use data::{Data, Dataset};
pub use exp_manager::ExpManager;
pub use inference::{GenKwargs, Inference};
pub use metric::{MetricChoice, OwnMetric};
pub use model::Model;
pub use notify::Notify;
pub use optim::{Optim, Sched};
pub use stage::{
    Evaluate, Generate, Load, Shard, Source, Stage, Stages, Task, Tokenize, Train, Validate,
};
pub use sweep::Sweep;
pub use tokenizer::Tokenizer;
pub use trainer::Trainer;
pub use union::{Amount, DataPrefix, FreeForm, FreeList, Texts, Weighted};
pub use verify::Verify;

use schemars::JsonSchema;
use serde::Deserialize;

/// A recipe.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Name of the recipe.
    pub name: Option<String>,
    /// Checkpoint that training starts from; null for fresh weights.
    pub restore_from_path: Option<String>,
    /// How the run is driven.
    #[serde(default)]
    pub trainer: Trainer,
    /// Run folder, loggers, checkpoints of the run.
    #[serde(default)]
    pub exp_manager: ExpManager,
    /// The model, its data and its optimizer.
    #[serde(default)]
    pub model: Model,

    /// What is done, in which order: `name: {kind: {settings}}`. Default: what the data calls for.
    pub stages: Option<Stages>,
    /// Values for `${{ vars.NAME }}`.
    pub vars: Option<FreeForm>,
    /// A recipe, or several, that this one is laid over.
    pub extends: Option<Texts>,
    /// Hydra's list of files that are put together; only `_self_` may stand in it.
    pub defaults: Option<FreeList>,
    /// Hydra's settings of itself.
    pub hydra: Option<FreeForm>,
    /// Values to try, for `sft-run sweep`.
    pub sweep: Option<Sweep>,
    /// What `sft-run verify` compares.
    pub verify: Option<Verify>,
    /// Who is told when a run ends.
    pub notify: Option<Notify>,
    /// Whose rules are followed where NeMo's differ from ours. Default: ours.
    pub compat: Option<Compat>,

    /// How text is generated (NeMo's inference file).
    pub inference: Option<Inference>,
    /// Prompts (NeMo's inference file).
    pub prompts: Option<Vec<String>>,
    /// Checkpoint to generate with (NeMo's inference file).
    pub gpt_model_file: Option<String>,
    /// Folder of a training checkpoint (NeMo's inference file).
    pub checkpoint_dir: Option<String>,
    /// Its file name (NeMo's inference file).
    pub checkpoint_name: Option<String>,
    /// Its settings (NeMo's inference file).
    pub hparams_file: Option<String>,
    /// Sequences decoded together (NeMo's inference file); -1 leaves it open.
    pub micro_batch_size: Option<i64>,
    /// Ranks that split each layer (NeMo's inference file); -1 takes the checkpoint's.
    pub tensor_model_parallel_size: Option<i64>,
    /// Pipeline stages (NeMo's inference file); -1 takes the checkpoint's.
    pub pipeline_model_parallel_size: Option<i64>,
    /// First decoder stage of encoder-decoder models (NeMo's inference file).
    pub pipeline_model_parallel_split_rank: Option<i64>,
    /// Ranks that share the experts (NeMo's inference file).
    pub expert_model_parallel_size: Option<i64>,
    /// Half-precision parameters (NeMo's inference file).
    #[serde(rename = "megatron_amp_O2")]
    pub megatron_amp_o2: Option<bool>,
    /// Start NeMo's server (NeMo's inference file).
    pub server: Option<bool>,
    /// Its port.
    pub port: Option<u64>,
    /// Start NeMo's web page (NeMo's inference file).
    pub web_server: Option<bool>,
    /// A public address for it.
    pub share: Option<bool>,
    /// User of the web page.
    pub username: Option<String>,
    /// Password of the web page.
    pub password: Option<String>,
    /// Port of the web page.
    pub web_port: Option<u64>,
    /// Talk in turns on the web page.
    pub chat: Option<bool>,
    /// Settings of the conversation.
    pub chatbot_config: Option<FreeForm>,
}
