//! The metrics that the evaluation computes: those with a name, and those that a recipe makes.

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
    /// BLEU over all samples, from 0 to 100 (sacreBLEU: `13a`, one reference, `exp` smoothing).
    Bleu,
    /// chrF over all samples, from 0 to 100 (sacreBLEU: characters in runs of 1 to 6, beta 2).
    Chrf,
    /// F1 of each label, averaged over the labels; texts stripped of outer white space are labels.
    #[serde(rename = "macro_f1")]
    MacroF1,
    /// Different words of all outputs divided by all words (Li et al. 2016).
    #[serde(rename = "distinct_1")]
    Distinct1,
    /// Different pairs of neighbouring words divided by all pairs (Li et al. 2016).
    #[serde(rename = "distinct_2")]
    Distinct2,
    /// Different runs of three words divided by all runs (Li et al. 2016).
    #[serde(rename = "distinct_3")]
    Distinct3,
    /// Share of generations that are one JSON value.
    JsonValid,
    /// Share of samples whose whole expected answer is what the model finds likeliest, token by
    /// token (teacher forced; lm-evaluation-harness's `acc` of LAMBADA).
    CompletionAccuracy,
    /// Share of rows of multiple choice whose right choice has the largest log-likelihood.
    Acc,
    /// The same of log-likelihoods divided by the choice's characters.
    AccNorm,
    /// The same of log-likelihoods divided by the choice's bytes.
    AccBytes,
}

/// A metric with everything it needs to know; files are inputs of the stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Share of generations in which a regular expression is found.
    Regex {
        /// The metric's name.
        name: String,
        /// The expression, in the syntax of Rust's `regex`.
        regex: String,
    },
    /// Mean of a minijinja expression over `prompt`, `expected` and `output`.
    Expression {
        /// The metric's name.
        name: String,
        /// The expression; it gives a number, or true (1) or false (0).
        expression: String,
    },
    /// Mean sentiment by a list of words, between -1 and 1; input `metrics.N.lexicon`.
    Lexicon {
        /// The metric's name.
        name: String,
    },
    /// Mean probability of a label by a text classifier; input `metrics.N.classifier`, a folder.
    Classifier {
        /// The metric's name.
        name: String,
        /// The label; none for the classifier's last one.
        label: Option<String>,
        /// Whether it reads the prompt too.
        with_prompt: bool,
    },
    /// Mean of another program's scores; words that name files are inputs `metrics.N.command.M`.
    Program {
        /// The metric's name.
        name: String,
        /// The program and its arguments.
        command: Vec<String>,
        /// Longest wait for the next score, in seconds.
        timeout: f64,
    },
    /// One by name.
    #[serde(untagged)]
    Named(MetricName),
}

impl Metric {
    /// The name as it stands in `metrics.json`.
    pub fn name(&self) -> &str {
        match self {
            Metric::Named(name) => name.name(),
            Metric::Regex { name, .. }
            | Metric::Expression { name, .. }
            | Metric::Lexicon { name }
            | Metric::Classifier { name, .. }
            | Metric::Program { name, .. } => name,
        }
    }
}

impl MetricName {
    /// All of them.
    pub const ALL: [MetricName; 20] = [
        MetricName::Loss,
        MetricName::Perplexity,
        MetricName::TokenAccuracy,
        MetricName::ExactMatch,
        MetricName::TokenF1,
        MetricName::RougeL,
        MetricName::Rouge1,
        MetricName::Rouge2,
        MetricName::Length,
        MetricName::Bleu,
        MetricName::Chrf,
        MetricName::MacroF1,
        MetricName::Distinct1,
        MetricName::Distinct2,
        MetricName::Distinct3,
        MetricName::JsonValid,
        MetricName::CompletionAccuracy,
        MetricName::Acc,
        MetricName::AccNorm,
        MetricName::AccBytes,
    ];

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
            MetricName::Bleu => "bleu",
            MetricName::Chrf => "chrf",
            MetricName::MacroF1 => "macro_f1",
            MetricName::Distinct1 => "distinct_1",
            MetricName::Distinct2 => "distinct_2",
            MetricName::Distinct3 => "distinct_3",
            MetricName::JsonValid => "json_valid",
            MetricName::CompletionAccuracy => "completion_accuracy",
            MetricName::Acc => "acc",
            MetricName::AccNorm => "acc_norm",
            MetricName::AccBytes => "acc_bytes",
        }
    }

    /// Whether it is computed from logits of the expected answer, without generating.
    pub fn is_teacher_forced(self) -> bool {
        use MetricName::{CompletionAccuracy, Loss, Perplexity, TokenAccuracy};
        matches!(self, Loss | Perplexity | TokenAccuracy | CompletionAccuracy)
    }

    /// Whether it is one of multiple choice.
    pub fn is_of_choices(self) -> bool {
        matches!(self, MetricName::Acc | MetricName::AccNorm | MetricName::AccBytes)
    }
}
