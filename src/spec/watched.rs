//! What a training watches of itself: which checkpoints are kept, and when it stops early.

use super::event::VALIDATION_METRIC;
use serde::{Deserialize, Serialize};

/// Checkpoints that are kept beside the last (`exp_manager.checkpoint_callback_params`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keep {
    /// The best so many; -1 keeps all.
    pub save_top_k: i64,
    /// What ranks them.
    pub monitor: Monitor,
    /// Whether more of it is better.
    pub more_is_better: bool,
    /// Their names, a pattern of [`crate::base::file_pattern`].
    pub filename: String,
    /// Make the best one the result, in place of the last.
    pub save_best_model: bool,
}

/// A number by which checkpoints are ranked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Monitor {
    /// The last validation's loss.
    ValLoss,
    /// The last step's loss.
    ReducedTrainLoss,
    /// A metric of the last validation, by its name in the log (`val_metrics/avg_NAME`).
    Metric(String),
}

impl Monitor {
    /// What recipes call it.
    pub fn named(name: &str) -> Option<Monitor> {
        match name {
            "val_loss" | "validation_loss" => Some(Monitor::ValLoss),
            "reduced_train_loss" | "train_loss" => Some(Monitor::ReducedTrainLoss),
            _ if name.starts_with(VALIDATION_METRIC) => Some(Monitor::Metric(name.to_owned())),
            _ => None,
        }
    }
}

/// When training stops before its last step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EarlyStopping {
    /// The value watched: `val_loss` or `val_metrics/avg_NAME`.
    pub monitor: String,
    /// Whether more of it is better.
    pub more_is_better: bool,
    /// Least change that counts as better.
    pub min_delta: f64,
    /// Validations in a row without a better value after which training stops.
    pub patience: u64,
}

/// A `.nemo` file of the trained model, at the layout of the training.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NemoFile {
    /// Its vocabulary is padded to a multiple of this times the tensor-parallel ranks.
    pub make_vocab_size_divisible_by: usize,
}
