//! The recipe's `exp_manager` section: where a run is written and how it is followed.

use super::choice::MonitorMode;
use super::union::FreeForm;
use schemars::JsonSchema;
use serde::Deserialize;

/// Run folder, loggers, checkpoints of the run.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExpManager {
    /// The run folder itself.
    pub explicit_log_dir: Option<String>,
    /// Folder under which `name/version` becomes the run folder.
    pub exp_dir: Option<String>,
    /// Name of the run.
    pub name: Option<String>,
    /// Version of the run; a folder below the name.
    pub version: Option<String>,
    /// Make the version from the time.
    pub use_datetime_version: Option<bool>,
    /// Write TensorBoard files.
    pub create_tensorboard_logger: Option<bool>,
    /// Settings of the TensorBoard logger.
    pub summary_writer_kwargs: Option<FreeForm>,
    /// Log to Weights & Biases.
    pub create_wandb_logger: Option<bool>,
    /// Settings of the Weights & Biases logger.
    pub wandb_logger_kwargs: Option<FreeForm>,
    /// Log to MLflow.
    pub create_mlflow_logger: Option<bool>,
    /// Settings of the MLflow logger.
    pub mlflow_logger_kwargs: Option<FreeForm>,
    /// Log to DLLogger.
    pub create_dllogger_logger: Option<bool>,
    /// Settings of the DLLogger logger.
    pub dllogger_logger_kwargs: Option<FreeForm>,
    /// Log to ClearML.
    pub create_clearml_logger: Option<bool>,
    /// Settings of the ClearML logger.
    pub clearml_logger_kwargs: Option<FreeForm>,
    /// Log to Neptune.
    pub create_neptune_logger: Option<bool>,
    /// Settings of the Neptune logger.
    pub neptune_logger_kwargs: Option<FreeForm>,
    /// Continue the run that stands in the run folder, when the recipe has changed since.
    pub resume_if_exists: Option<bool>,
    /// Continue a run that had ended.
    pub resume_past_end: Option<bool>,
    /// Start afresh when there is nothing to continue.
    pub resume_ignore_no_checkpoint: Option<bool>,
    /// A checkpoint that training continues from, as `model.resume_from_checkpoint`, which goes
    /// before it.
    pub resume_from_checkpoint: Option<String>,
    /// Keep checkpoints during training.
    pub create_checkpoint_callback: Option<bool>,
    /// Which checkpoints are kept.
    pub checkpoint_callback_params: Option<CheckpointCallback>,
    /// Stop when the monitored value no longer improves.
    pub create_early_stopping_callback: Option<bool>,
    /// When to stop.
    pub early_stopping_callback_params: Option<EarlyStopping>,
    /// Save when the scheduler asks the job to end.
    pub create_preemption_callback: Option<bool>,
    /// Files copied to the run folder.
    pub files_to_copy: Option<Vec<String>>,
    /// Log the time of each step.
    pub log_step_timing: Option<bool>,
    /// How step times are taken.
    pub step_timing_kwargs: Option<StepTiming>,
    /// Log on each node's first rank only.
    pub log_local_rank_0_only: Option<bool>,
    /// Log on the first rank only.
    pub log_global_rank_0_only: Option<bool>,
    /// Skip the validation right after resuming.
    pub disable_validation_on_resume: Option<bool>,
    /// Longest time of the run, `DD:HH:MM:SS`.
    pub max_time_per_run: Option<String>,
    /// Seconds that other ranks wait for the first.
    pub seconds_to_sleep: Option<f64>,
}

/// Which checkpoints are kept.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CheckpointCallback {
    /// Folder of the checkpoints.
    pub dirpath: Option<String>,
    /// The value that ranks checkpoints.
    pub monitor: Option<String>,
    /// How many of the best are kept; -1 keeps all.
    #[schemars(range(min = -1))]
    pub save_top_k: Option<i64>,
    /// Whether less or more of the monitored value is better.
    pub mode: Option<MonitorMode>,
    /// Write a `.nemo` file with every checkpoint.
    pub always_save_nemo: Option<bool>,
    /// Write a `.nemo` file at the end.
    pub save_nemo_on_train_end: Option<bool>,
    /// Make the best checkpoint the result.
    pub save_best_model: Option<bool>,
    /// Keep the last checkpoint too.
    pub save_last: Option<bool>,
    /// Steps between checkpoints.
    pub every_n_train_steps: Option<u64>,
    /// Epochs between checkpoints.
    pub every_n_epochs: Option<u64>,
    /// File name, with `{step}` and the like.
    pub filename: Option<String>,
    /// Ranks that hold one model, for NeMo's file names.
    pub model_parallel_size: Option<u64>,
    /// Write in the background.
    pub async_save: Option<bool>,
    /// How many of the last checkpoints keep their optimizer state.
    pub save_last_n_optim_states: Option<i64>,
}

/// When to stop early.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EarlyStopping {
    /// The value watched.
    pub monitor: Option<String>,
    /// Whether less or more of it is better.
    pub mode: Option<MonitorMode>,
    /// Least change that counts as better.
    pub min_delta: Option<f64>,
    /// Validations without improvement before the run stops.
    pub patience: Option<u64>,
    /// Say so.
    pub verbose: Option<bool>,
    /// Fail when the value is missing.
    pub strict: Option<bool>,
}

/// How step times are taken.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StepTiming {
    /// Wait for the GPU before reading the clock.
    pub sync_cuda: Option<bool>,
    /// Steps averaged.
    pub buffer_size: Option<u64>,
    /// How they are averaged.
    pub reduction: Option<String>,
}
