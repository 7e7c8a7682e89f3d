//! The recipe's `trainer` section: devices, length of the run, validation; the keys are PyTorch Lightning's.

use super::choice::{Accelerator, PrecisionName};
use super::union::Amount;
use schemars::JsonSchema;
use serde::Deserialize;

/// How the run is driven.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Trainer {
    /// Devices of each node. Default: 1.
    #[schemars(range(min = 1))]
    pub devices: Option<usize>,
    /// Number of nodes. Default: 1.
    #[schemars(range(min = 1))]
    pub num_nodes: Option<usize>,
    /// What the ranks compute on. Default: gpu.
    pub accelerator: Option<Accelerator>,
    /// Number format of the computation. Default: 32.
    pub precision: Option<PrecisionName>,
    /// Lightning's own logger.
    pub logger: Option<bool>,
    /// Lightning's own checkpoints.
    pub enable_checkpointing: Option<bool>,
    /// Lightning's distributed sampler (older name).
    pub replace_sampler_ddp: Option<bool>,
    /// Lightning's distributed sampler.
    pub use_distributed_sampler: Option<bool>,
    /// Most epochs; -1 leaves the length to `max_steps`.
    #[schemars(range(min = -1))]
    pub max_epochs: Option<i64>,
    /// Optimizer steps of the run.
    #[schemars(range(min = -1))]
    pub max_steps: Option<i64>,
    /// Longest time of the run, `DD:HH:MM:SS`.
    pub max_time: Option<String>,
    /// Steps between lines of metrics. Default: 1.
    #[schemars(range(min = 1))]
    pub log_every_n_steps: Option<u64>,
    /// Steps between validations; a share of an epoch is refused. Default: no validation.
    pub val_check_interval: Option<Amount>,
    /// Epochs between validations.
    pub check_val_every_n_epoch: Option<u64>,
    /// Global batches per training epoch.
    pub limit_train_batches: Option<Amount>,
    /// Global batches per validation: a whole number, or 1.0 for all; other shares are refused. Default: all.
    pub limit_val_batches: Option<Amount>,
    /// Global batches of the test run.
    pub limit_test_batches: Option<Amount>,
    /// Must stay 1: accumulation follows from the batch sizes.
    #[schemars(range(min = 1))]
    pub accumulate_grad_batches: Option<u64>,
    /// Largest norm of the gradient; 0 leaves gradients as they are. Default: 0.
    #[schemars(range(min = 0))]
    pub gradient_clip_val: Option<f64>,
    /// cuDNN's search for fast kernels.
    pub benchmark: Option<bool>,
    /// Lightning's deterministic mode.
    pub deterministic: Option<bool>,
    /// Lightning's table of layers.
    pub enable_model_summary: Option<bool>,
    /// Lightning's progress bar.
    pub enable_progress_bar: Option<bool>,
    /// Validation batches before the first step.
    pub num_sanity_val_steps: Option<i64>,
}
