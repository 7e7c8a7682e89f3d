//! How parameters are changed: optimizer, learning-rate schedule, precision.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The optimizer and its settings (`model.optim`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Optimizer {
    /// Which one; every Adam of NeMo's is computed as AdamW (decoupled decay).
    pub name: OptimizerName,
    /// Peak learning rate.
    pub lr: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Decay of the first and the second moment.
    pub betas: [f64; 2],
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Whether norm weights decay too; biases never do.
    pub do_layer_norm_weight_decay: bool,
    /// The learning rate over the steps; constant when absent.
    pub sched: Option<Schedule>,
}

/// Optimizers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OptimizerName {
    /// AdamW.
    Adamw,
    /// AdamW whose state is split over the data-parallel ranks (ZeRO-1).
    DistributedFusedAdam,
}

/// A learning-rate schedule with NeMo's parameters, steps and not ratios (`core/optim/lr_scheduler.py`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// Which curve.
    pub name: ScheduleName,
    /// Steps of linear warm-up.
    pub warmup_steps: u64,
    /// Steps at `min_lr` at the end of the run (not a hold at the peak).
    pub constant_steps: u64,
    /// The lowest learning rate after warm-up.
    pub min_lr: f64,
    /// Length of the schedule in steps.
    pub max_steps: u64,
}

/// Curves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ScheduleName {
    /// Half a cosine from `lr` to `min_lr`.
    CosineAnnealing,
    /// Warm-up, then constant.
    WarmupPolicy,
}

/// Number format of the computation (`trainer.precision`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32-bit floats throughout.
    Fp32,
    /// bfloat16 compute.
    Bf16,
    /// IEEE half compute with loss scaling.
    Fp16,
}

/// How fp16's loss scale moves; fields are NeMo's keys of `model`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LossScaling {
    /// The scale of the first step.
    pub native_amp_init_scale: f64,
    /// Steps without overflow before the scale doubles.
    pub native_amp_growth_interval: u64,
    /// Overflows, none of them followed by a step without one, before the scale halves.
    pub hysteresis: u64,
}

/// Where fp16's loss scale stands between two steps.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LossScale {
    /// The scale of the next step.
    pub scale: f64,
    /// Steps without overflow since the scale last moved.
    pub good_steps: u64,
    /// Overflows that are left before the scale halves.
    pub overflows_left: u64,
    /// Steps of the run that overflowed, and changed no parameter.
    pub skipped_steps: u64,
}

/// How many ranks stand along each axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Degrees {
    /// Replicas of the model.
    pub data: usize,
    /// Pipeline stages.
    pub pipeline: usize,
    /// Model chunks per pipeline stage (interleaved schedule), 1 for none.
    pub virtual_pipeline: usize,
    /// Ranks that split each layer.
    pub tensor: usize,
    /// Whether norms and dropout are split over the tensor ranks by sequence.
    pub sequence: bool,
}

impl Degrees {
    /// One rank that does everything.
    pub const SINGLE: Degrees =
        Degrees { data: 1, pipeline: 1, virtual_pipeline: 1, tensor: 1, sequence: false };

    /// Number of ranks.
    pub fn world_size(&self) -> usize {
        self.data * self.pipeline * self.tensor
    }
}

/// Which activations the backward pass computes again instead of keeping them
/// (`model.activations_checkpoint_granularity`, `_method`, `_num_layers`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Recompute {
    /// Nothing is computed again.
    #[default]
    None,
    /// The core of attention: scores, softmax, context.
    Selective,
    /// Every group of so many blocks keeps its input only (`full`, `uniform`).
    Uniform(usize),
    /// The first so many blocks of each model chunk (of a pipeline stage, when it has one chunk) keep
    /// their inputs only (`full`, `block`).
    Block(usize),
}
