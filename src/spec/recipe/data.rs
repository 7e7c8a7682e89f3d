//! The recipe's `model.data` section: ready shards (pretraining keys) or row files (SFT keys).

use super::choice::{DataImpl, DataloaderType, TruncationMethod};
use super::union::{DataPrefix, Texts};
use schemars::JsonSchema;
use serde::Deserialize;

/// Where training text comes from and in which order.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// Ready token files: a path, `[path]`, `[weight, path, …]`, or `{train: …, validation: …, test: …}`; paths without `.bin`.
    pub data_prefix: Option<DataPrefix>,
    /// Folder for NeMo's index files.
    pub index_mapping_dir: Option<String>,
    /// Form of ready token files. Default: mmap.
    pub data_impl: Option<DataImpl>,
    /// Shares of train, validation and test, such as `900,50,50`.
    pub splits_string: Option<String>,
    /// Tokens per sequence, at most `model.encoder_seq_length`, which is the default.
    #[schemars(range(min = 1))]
    pub seq_length: Option<usize>,
    /// Skip reading the files once.
    pub skip_warmup: Option<bool>,
    /// Worker processes of the loader.
    pub num_workers: Option<u64>,
    /// Order of the sequences. Default: single.
    pub dataloader_type: Option<DataloaderType>,
    /// Restart positions after each end-of-document token. Default: false.
    pub reset_position_ids: Option<bool>,
    /// Attend within documents only. Default: false.
    pub reset_attention_mask: Option<bool>,
    /// Do not learn at end-of-document tokens. Default: false.
    pub eod_mask_loss: Option<bool>,
    /// Drop the last incomplete validation batch.
    pub validation_drop_last: Option<bool>,
    /// Sequences of `seq_length` tokens rather than one more.
    pub no_seqlen_plus_one_input_tokens: Option<bool>,
    /// Fill the last batch up with empty samples.
    pub pad_samples_to_global_batch_size: Option<bool>,
    /// Shuffle documents before cutting sequences.
    pub shuffle_documents: Option<bool>,
    /// Start each text with the beginning-of-sequence token.
    pub add_bos: Option<bool>,
    /// End each text with the end-of-sequence token.
    pub add_eos: Option<bool>,
    /// Rows are conversations.
    pub chat: Option<bool>,
    /// Marks between the turns of a conversation.
    pub chat_prompt_tokens: Option<ChatPromptTokens>,
    /// Row files to learn from.
    pub train_ds: Option<Dataset>,
    /// Row files watched during training.
    pub validation_ds: Option<Dataset>,
    /// Row files held out to the end.
    pub test_ds: Option<Dataset>,
}

/// Marks between the turns of a conversation.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChatPromptTokens {
    /// Before the system's turn.
    pub system_turn_start: Option<String>,
    /// Before each turn.
    pub turn_start: Option<String>,
    /// Before the label of a turn.
    pub label_start: Option<String>,
    /// After each turn.
    pub end_of_turn: Option<String>,
    /// After the speaker's name.
    pub end_of_name: Option<String>,
}

/// Row files of one split and how text is made of a row (NeMo's SFT keys).
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Dataset {
    /// JSONL files.
    pub file_names: Option<Texts>,
    /// One JSONL file (NeMo-Aligner's key).
    pub file_path: Option<String>,
    /// Names of the files, for metrics.
    pub names: Option<Texts>,
    /// Sequences per step; must equal `model.global_batch_size`.
    pub global_batch_size: Option<usize>,
    /// Sequences per forward pass; must equal `model.micro_batch_size`.
    pub micro_batch_size: Option<usize>,
    /// Shuffle the samples of each epoch.
    pub shuffle: Option<bool>,
    /// Worker processes of the loader.
    pub num_workers: Option<u64>,
    /// Worker processes that index the files.
    pub memmap_workers: Option<u64>,
    /// Page-locked memory for batches.
    pub pin_memory: Option<bool>,
    /// Longest sample in tokens; longer ones are cut. Default: `model.encoder_seq_length`.
    #[schemars(range(min = 1))]
    pub max_seq_length: Option<usize>,
    /// Shortest sample in tokens; shorter ones are dropped. Default: 1.
    pub min_seq_length: Option<usize>,
    /// Drop the last incomplete batch.
    pub drop_last: Option<bool>,
    /// Share of the samples that comes from each file.
    pub concat_sampling_probabilities: Option<Vec<f64>>,
    /// Field of the prompt (older key). Default: input.
    pub context_key: Option<String>,
    /// Field of the answer. Default: output.
    pub label_key: Option<String>,
    /// End with the end-of-sequence token. Default: true.
    pub add_eos: Option<bool>,
    /// Put a separator token between prompt and answer.
    pub add_sep: Option<bool>,
    /// Start with the beginning-of-sequence token. Default: false.
    pub add_bos: Option<bool>,
    /// A new line between prompt and answer instead of a space (older key).
    pub separate_prompt_and_response_with_newline: Option<bool>,
    /// Fields that are cut when a sample is too long, with commas between. Default: input.
    pub truncation_field: Option<String>,
    /// Which end is cut. Default: right.
    pub truncation_method: Option<TruncationMethod>,
    /// How text is made of the fields; the answer comes last. Default: `{input} {output}`.
    pub prompt_template: Option<String>,
    /// A ready prompt form (older key).
    pub assistant_prompt: Option<String>,
    /// Folder for NeMo's index files.
    pub index_mapping_dir: Option<String>,
    /// Shuffle all epochs together.
    pub global_sample_mapping: Option<bool>,
    /// Read a Hugging Face data set.
    pub hf_dataset: Option<bool>,
    /// The files are packed already.
    pub packed_sequence: Option<bool>,
    /// Pad every batch to `max_seq_length`.
    pub pad_to_max_length: Option<bool>,
    /// Write generated answers to a file.
    pub write_predictions_to_file: Option<bool>,
    /// Start of that file's name.
    pub output_file_path_prefix: Option<String>,
    /// Most tokens generated per answer. Default: 32.
    #[schemars(range(min = 1))]
    pub tokens_to_generate: Option<usize>,
    /// What is computed on the split.
    pub metric: Option<DatasetMetric>,
}

/// What is computed on a split.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DatasetMetric {
    /// `loss`, `exact_string_match`, `rouge`, `token_f1`, or one of torchmetrics' (refused).
    pub name: Option<String>,
    /// Averaging over classes.
    pub average: Option<String>,
    /// Number of classes.
    pub num_classes: Option<u64>,
}
