//! What happens during a run, as one ordered stream of plain data.

use super::generation::StopReason;
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;

/// Something that happened inside a stage or around it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A stage begins to run.
    StageStarted {
        /// The stage's name.
        stage: String,
        /// Its kind.
        kind: String,
        /// Why it runs.
        reason: String,
    },
    /// A stage's output was taken from the cache, or stood already where it belongs.
    StageReused {
        /// The stage's name.
        stage: String,
        /// Its kind.
        kind: String,
        /// Its fingerprint, shortened.
        fingerprint: String,
    },
    /// A stage is done.
    StageFinished {
        /// The stage's name.
        stage: String,
        /// Seconds it took.
        seconds: f64,
        /// Numbers to show (`samples`, `exact_match`, …).
        facts: BTreeMap<String, f64>,
    },
    /// Where a stage's output lies; of a stage that failed, what it had computed till then.
    StageOutput {
        /// The stage's name.
        stage: String,
        /// The folder.
        output: String,
    },
    /// A stage failed.
    StageFailed {
        /// The stage's name.
        stage: String,
        /// The error with its causes.
        error: String,
    },
    /// Work of a known size begins or goes on; the sink draws a bar.
    Progress {
        /// What is counted, such as `tokenizing`.
        task: String,
        /// Done so far.
        done: u64,
        /// All of it.
        total: u64,
        /// The unit, such as `rows`.
        unit: String,
    },
    /// Training continues a partial run: metrics after this step are void.
    Resumed {
        /// Steps done.
        step: u64,
    },
    /// A checkpoint is whole on the disk.
    Saved {
        /// Steps done in it.
        step: u64,
        /// Seconds that training stood still for it.
        pause: f64,
        /// Seconds until it was on the disk, most of them beside training.
        seconds: f64,
        /// Its bytes.
        bytes: u64,
    },
    /// An optimizer step is done.
    Step(StepMetrics),
    /// A validation is done.
    Validation(ValidationMetrics),
    /// A sample was generated for people to read.
    Sample(Sample),
    /// A remark for people.
    Note {
        /// The text.
        text: String,
    },
}

/// One line of `metrics.jsonl` for a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepMetrics {
    /// Steps done, this one included.
    pub step: u64,
    /// Sequences consumed so far.
    pub consumed_samples: u64,
    /// Loss per learned token over the global batch, in nats.
    pub reduced_train_loss: f64,
    /// Learning rate of this step.
    pub lr: f64,
    /// Gradient norm before clipping; none when it is not finite in fp16, and the step skipped.
    pub grad_norm: Option<f64>,
    /// fp16's loss scale in this step; none in other formats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss_scale: Option<f64>,
    /// Tokens of the batch, padding not counted.
    pub tokens: u64,
    /// Tokens that were learned from.
    pub learned_tokens: u64,
    /// Tokens per second of this step.
    pub tokens_per_second: f64,
}

/// One line of `metrics.jsonl` for a validation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ValidationMetrics {
    /// Steps done.
    pub step: u64,
    /// Sequences consumed so far.
    pub consumed_samples: u64,
    /// Loss per learned token over the validation batches, in nats.
    pub val_loss: f64,
    /// Metrics of generated answers by their names in the log: `val_metrics/avg_NAME`.
    #[serde(flatten, deserialize_with = "of_metrics")]
    pub metrics: BTreeMap<String, f64>,
}

/// What the names of validation metrics begin with, as trlx logs them.
pub const VALIDATION_METRIC: &str = "val_metrics/avg_";

/// The keys of a line that are validation metrics; other keys are somebody else's.
fn of_metrics<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, f64>, D::Error> {
    let all: BTreeMap<String, serde_json::Value> = BTreeMap::deserialize(deserializer)?;
    let ours = all.into_iter().filter(|(name, _)| name.starts_with(VALIDATION_METRIC));
    Ok(ours.filter_map(|(name, value)| Some((name, value.as_f64()?))).collect())
}

impl ValidationMetrics {
    /// A value that can be watched: `val_loss`, or a metric by its name in the log.
    pub fn value(&self, name: &str) -> Option<f64> {
        let metric = || self.metrics.get(name).copied();
        if name == "val_loss" { Some(self.val_loss) } else { metric() }
    }
}

/// A prompt, what was expected and what came; one line of `samples.jsonl` and `generations.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// The task that the sample belongs to, if it comes from a tokenize stage.
    #[serde(default)]
    pub task: Option<String>,
    /// The prompt.
    pub prompt: String,
    /// The expected answer, if there is one.
    pub expected: Option<String>,
    /// The generated text.
    pub output: String,
    /// Why generation stopped.
    pub stop_reason: StopReason,
    /// Number of generated tokens.
    pub tokens: usize,
    /// The generated tokens.
    #[serde(default)]
    pub token_ids: Vec<u32>,
    /// The log-probability that the model gave to each of them (`compute_logprob`); of a row of
    /// multiple choice, that of each choice.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub logprob: Vec<f64>,
    /// The log-probabilities of the whole vocabulary at each of them (`all_probs`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub full_logprob: Vec<Vec<f64>>,
    /// The sample's own scores by metric name (`exact_match`: 1 is a hit).
    #[serde(default)]
    pub scores: BTreeMap<String, f64>,
}

/// Where events go. Implementations order them and must not fail.
pub trait Sink: Sync {
    /// Takes one event.
    fn emit(&self, event: Event);
}

/// A sink that forgets everything.
#[derive(Clone, Copy, Debug)]
pub struct Silent;

impl Sink for Silent {
    fn emit(&self, _event: Event) {}
}
