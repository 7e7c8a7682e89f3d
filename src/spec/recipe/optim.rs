//! The recipe's `model.optim` section.

use super::choice::{OptimizerChoice, ScheduleChoice};
use schemars::JsonSchema;
use serde::Deserialize;

/// The optimizer.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Optim {
    /// Which one. Default: adamw.
    pub name: Option<OptimizerChoice>,
    /// Peak learning rate.
    #[schemars(range(min = 0))]
    pub lr: Option<f64>,
    /// Decoupled weight decay. Default: 0.
    #[schemars(range(min = 0))]
    pub weight_decay: Option<f64>,
    /// Decay of the first and second moment. Default: 0.9 and 0.999.
    pub betas: Option<[f64; 2]>,
    /// Added to the root of the second moment. Default: 1e-8.
    #[schemars(range(min = 0))]
    pub eps: Option<f64>,
    /// Reduce gradients during the backward pass.
    pub overlap_grad_sync: Option<bool>,
    /// Gather parameters during the forward pass.
    pub overlap_param_sync: Option<bool>,
    /// Size of the reduction's buckets in MB.
    pub bucket_cap_mb: Option<f64>,
    /// One buffer for all gradients.
    pub contiguous_grad_buffer: Option<bool>,
    /// One buffer for all parameters.
    pub contiguous_param_buffer: Option<bool>,
    /// Number format of the reduction.
    pub grad_sync_dtype: Option<String>,
    /// The learning rate over the steps. Default: constant.
    pub sched: Option<Sched>,
}

/// The learning rate over the steps.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sched {
    /// Which curve.
    pub name: Option<ScheduleChoice>,
    /// Steps of linear warm-up. Default: 0.
    pub warmup_steps: Option<u64>,
    /// Warm-up as a share of the steps.
    #[schemars(range(min = 0, max = 1))]
    pub warmup_ratio: Option<f64>,
    /// Steps at `min_lr` at the end (not a hold at the peak). Default: 0.
    pub constant_steps: Option<u64>,
    /// The same as a share of the steps.
    #[schemars(range(min = 0, max = 1))]
    pub constant_ratio: Option<f64>,
    /// Lowest learning rate after warm-up. Default: 0.
    #[schemars(range(min = 0))]
    pub min_lr: Option<f64>,
    /// Length of the schedule. Default: `trainer.max_steps`.
    #[schemars(range(min = 1))]
    pub max_steps: Option<u64>,
    /// Value watched by a schedule that follows the loss.
    pub monitor: Option<String>,
    /// Follow the loss.
    pub reduce_on_plateau: Option<bool>,
    /// Step the last epoch was at.
    pub last_epoch: Option<i64>,
}
