//! What tokenize makes of rows: splits, tasks, and the ways to make text.

use serde::{Deserialize, Serialize};

/// One file of rows and what is made of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RowSource {
    /// Which split a row goes to.
    pub split: SplitRule,
    /// The samples made of each row.
    pub tasks: Vec<Task>,
}

/// Which split a row goes to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SplitRule {
    /// All rows to one split.
    All(Split),
    /// By the hash of a field's value, so that equal values never stand on two sides.
    ByHash {
        /// The field.
        field: String,
        /// Share of validation rows.
        validation: f64,
        /// Share of test rows.
        test: f64,
    },
}

/// The splits.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// Learned from.
    Train,
    /// Watched during training.
    Validation,
    /// Held out to the end.
    Test,
}

impl Split {
    /// All of them.
    pub const ALL: [Split; 3] = [Split::Train, Split::Validation, Split::Test];

    /// The name, which is also the stem of the split's files.
    pub fn name(self) -> &'static str {
        match self {
            Split::Train => "train",
            Split::Validation => "validation",
            Split::Test => "test",
        }
    }
}

/// One kind of sample made of a row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Task {
    /// Its name, by which evaluation can select it.
    pub name: String,
    /// Share of the rows that give such a sample, by the hash of the row; 1 is all.
    pub share: f64,
    /// How text is made of the row.
    pub format: Format,
    /// Whether only the answer is learned.
    pub answer_only_loss: bool,
    /// Start with the beginning-of-sequence token.
    pub add_bos: bool,
    /// End with the end-of-sequence token, which is learned.
    pub add_eos: bool,
}

/// How text is made of a row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// One field, all of it learned, cut on the right.
    Text {
        /// The field.
        field: String,
    },
    /// minijinja templates over the row's fields.
    Templates {
        /// The prompt.
        prompt: String,
        /// The answer.
        answer: String,
    },
    /// NeMo's `prompt_template`, `gpt_sft_dataset.py`'s rules.
    Nemo {
        /// Such as `{input} {output}`; the label comes last.
        prompt_template: String,
        /// The label's field.
        label_key: String,
        /// Fields from which overflow is cut, in equal parts.
        truncation_field: Vec<String>,
        /// Cut from the left end rather than the right.
        truncate_left: bool,
        /// Room kept for the answer during generation.
        tokens_to_generate: usize,
    },
    /// A conversation through a Hugging Face chat template; the assistant's turns are the answers.
    Chat {
        /// The template; none is the tokenizer's own.
        template: Option<String>,
        /// The field that holds the messages.
        messages: String,
        /// The day of `strftime_now`; none leaves it undefined.
        date: Option<String>,
    },
}

/// Where sequences come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DataSource {
    /// Input `data`: a shard stage's output, splits included.
    Shards,
    /// Inputs `prefix.N`: Megatron token streams, blended by weight and cut by `splits_string`.
    Prefixes {
        /// A weight for each prefix.
        weights: Vec<f64>,
        /// Shares of train, validation and test.
        splits: [f64; 3],
    },
}
