//! Names of the metrics that the evaluation computes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A metric by name.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum MetricName {
    /// Mean negative log-likelihood per learned token, in nats.
    Loss,
    /// `exp(loss)`.
    Perplexity,
    /// Share of learned tokens whose most likely prediction is right (teacher forced).
    TokenAccuracy,
    /// Share of generations equal to the expected text, both stripped of outer white space.
    ExactMatch,
    /// Mean F1 of the bags of lower-cased words without punctuation (SQuAD's, articles kept).
    TokenF1,
    /// ROUGE-L F-measure by longest common subsequence of lower-cased alphanumeric tokens (Lin 2004).
    RougeL,
    /// ROUGE-1 F-measure (Lin 2004).
    #[serde(rename = "rouge_1")]
    Rouge1,
    /// ROUGE-2 F-measure (Lin 2004).
    #[serde(rename = "rouge_2")]
    Rouge2,
    /// Mean number of generated characters.
    Length,
}

impl MetricName {
    /// The name as it stands in a recipe and in `metrics.json`.
    pub fn name(self) -> &'static str {
        match self {
            MetricName::Loss => "loss",
            MetricName::Perplexity => "perplexity",
            MetricName::TokenAccuracy => "token_accuracy",
            MetricName::ExactMatch => "exact_match",
            MetricName::TokenF1 => "token_f1",
            MetricName::RougeL => "rouge_l",
            MetricName::Rouge1 => "rouge_1",
            MetricName::Rouge2 => "rouge_2",
            MetricName::Length => "length",
        }
    }

    /// Whether it is computed from logits of the expected answer, without generating.
    pub fn is_teacher_forced(self) -> bool {
        matches!(self, MetricName::Loss | MetricName::Perplexity | MetricName::TokenAccuracy)
    }
}
