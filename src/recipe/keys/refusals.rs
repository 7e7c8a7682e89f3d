//! Values that are refused, each with what to do instead.

use crate::recipe::path::Path;
use serde_yaml::Value;

/// Which values of a key are refused. Null never is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// `true`.
    True,
    /// `false`.
    False,
    /// Any value.
    Set,
    /// Any list or mapping that holds something.
    Filled,
    /// A number above one.
    AboveOne,
    /// One of these texts.
    OneOf(&'static [&'static str]),
    /// Any text but these.
    NotOneOf(&'static [&'static str]),
    /// Hydra's list of files, when it has one to put in: more than `_self_`, than options without a
    /// choice, and than what is about Hydra itself.
    NamesFiles,
}

impl When {
    /// Whether a value is refused.
    pub fn holds(&self, value: &Value) -> bool {
        match self {
            When::True => value.as_bool() == Some(true),
            When::False => value.as_bool() == Some(false),
            When::Set => !value.is_null(),
            When::Filled => match value {
                Value::Sequence(items) => !items.is_empty(),
                Value::Mapping(items) => !items.is_empty(),
                _ => false,
            },
            When::AboveOne => value.as_f64().is_some_and(|number| number > 1.0),
            When::OneOf(names) => value.as_str().is_some_and(|text| names.contains(&text)),
            When::NotOneOf(names) => value.as_str().is_some_and(|text| !names.contains(&text)),
            When::NamesFiles => !files(value).is_empty(),
        }
    }

    /// What is wrong with the value of `path`.
    pub(super) fn message(&self, path: &Path, value: &Value) -> String {
        match (self, value) {
            (When::NamesFiles, _) => {
                format!("`{path}` names files: {}", files(value).join(", "))
            }
            (_, Value::Sequence(_) | Value::Mapping(_)) => format!("`{path}` cannot be set here"),
            _ => {
                let written = serde_yaml::to_string(value).unwrap_or_default();
                format!("`{path}` cannot be {}", written.trim())
            }
        }
    }

    /// The values in words, after "refused".
    pub fn words(&self) -> String {
        match self {
            When::True => "when true".to_owned(),
            When::False => "when false".to_owned(),
            When::Set => "when set".to_owned(),
            When::Filled => "when not empty".to_owned(),
            When::AboveOne => "when above 1".to_owned(),
            When::OneOf(names) => format!("when {}", names.join(", ")),
            When::NotOneOf(names) => format!("unless {}", names.join(", ")),
            When::NamesFiles => "when it names other files than `_self_`".to_owned(),
        }
    }
}

/// The files that Hydra would look for, as the list names them: `base`, or `optim: adam`.
fn files(defaults: &Value) -> Vec<String> {
    let name = |item: &Value| match item {
        Value::String(name) if name == "_self_" => Vec::new(),
        Value::Mapping(groups) => {
            let text = |key: &Value| key.as_str().unwrap_or_default().to_owned();
            let chosen = groups
                .iter()
                .filter(|(group, choice)| !choice.is_null() && !text(group).contains("hydra/"));
            chosen.map(|(group, choice)| format!("{}: {}", text(group), shown(choice))).collect()
        }
        other => vec![shown(other)],
    };
    defaults.as_sequence().into_iter().flatten().flat_map(name).collect()
}

fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| serde_json::to_string(value).unwrap_or_default(), str::to_owned)
}

const NEMO_FILES: &str = "a `.nemo` file for each checkpoint is not written: `save_nemo_on_train_end` writes one at the end, `sft-run convert` makes one of any checkpoint";
const TIME_LIMIT: &str = "a time limit is not built; a stage that is stopped continues when it is run again, so `timeout` does the same";
const ROW_LENGTH: &str = "dropping short samples is not built";
const ADD_SEP: &str =
    "a separator token is not built; put the text that separates into the prompt template";
const ASSISTANT: &str = "ready prompt forms are not built; write the text into `prompt_template`";
const HF_DATASET: &str = "Hugging Face data sets are not read; write the rows to a JSONL file";
const PREPACKED: &str = "NeMo's packed .npy files are Python pickles and are not read; give the JSONL files, and pack with a shard stage (`packing: true`)";
const SPLIT_FILES: &str = "token files for each split are not built: write one blend, `[weight, path, …]`, and cut it by splits_string";
const FLOAT8: &str = "8-bit floats are not built: use bf16";

/// Key, refused values, what to do instead.
pub(super) const VALUES: &[(&str, When, &str)] = &[
    (
        "compat",
        When::Set,
        "NeMo's own rules are not built: remove the key; the README lists the differences (\"Differences from NeMo\"), of which `repetition_penalty_rule: nemo` in gen_kwargs can be had",
    ),
    (
        "defaults",
        When::NamesFiles,
        "Hydra's search for files is not built: name them by their paths, `extends: [base.yaml]`, and remove `defaults`",
    ),
    ("trainer.max_time", When::Set, TIME_LIMIT),
    ("trainer.limit_train_batches", When::Set, "the length of the run is `trainer.max_steps`"),
    ("exp_manager.checkpoint_callback_params.always_save_nemo", When::True, NEMO_FILES),
    (
        "exp_manager.files_to_copy",
        When::Filled,
        "copying files is not built: the run folder holds the resolved recipe",
    ),
    ("exp_manager.max_time_per_run", When::Set, TIME_LIMIT),
    ("model.rampup_batch_size", When::Set, "a growing batch is not built: set it to null"),
    (
        "model.expert_model_parallel_size",
        When::AboveOne,
        "there are no experts in this model: set it to 1",
    ),
    (
        "model.context_parallel_size",
        When::AboveOne,
        "splitting sequences over ranks is not built: set it to 1",
    ),
    (
        "model.normalization",
        When::OneOf(&["low_precision_layernorm"]),
        "it is not built: use layernorm, layernorm1p or rmsnorm",
    ),
    (
        "model.position_embedding_type",
        When::OneOf(&["alibi", "kerple", "xpos", "sandwich", "none"]),
        "it is not built: use learned_absolute or rope",
    ),
    (
        "model.normalize_attention_scores",
        When::False,
        "scores are always divided by the root of the head width: set it to true",
    ),
    ("model.headscale", When::True, "a scale per head is not built: set it to false"),
    (
        "model.transformer_block_type",
        When::OneOf(&["post_ln", "normformer"]),
        "it is not built: use pre_ln",
    ),
    ("model.attention_type", When::NotOneOf(&["multihead"]), "it is not built: use multihead"),
    ("model.use_emha", When::True, "extended multi-head attention is not built: set it to false"),
    ("model.onnx_safe", When::True, "ONNX export is not built: set it to false"),
    (
        "model.reset_lr",
        When::True,
        "starting the schedule again is not built: a further train stage has a schedule of its own (`with`)",
    ),
    (
        "model.reset_lr_steps",
        When::True,
        "starting the schedule again is not built: a further train stage has a schedule of its own (`with`)",
    ),
    (
        "model.fp32_residual_connection",
        When::True,
        "an fp32 residual stream is not built: set it to false, or train with precision 32",
    ),
    (
        "model.fp16_lm_cross_entropy",
        When::True,
        "the loss is always computed in fp32: set it to false",
    ),
    (
        "model.transformer_engine",
        When::True,
        "Transformer Engine is not used: set it to false, which gives the same model",
    ),
    ("model.fp8", When::True, FLOAT8),
    ("model.cpu_offloading", When::True, "offloading is not built: set it to false"),
    ("model.fsdp", When::True, "FSDP is not built: use tensor and pipeline parallelism"),
    (
        "model.nsys_profile.enabled",
        When::True,
        "profiling from inside is not built: run the program under nsys",
    ),
    (
        "model.tokenizer.library",
        When::NotOneOf(&["megatron", "huggingface", "sentencepiece"]),
        "it is not built: use megatron (vocab.json and merges.txt), huggingface (tokenizer.json) or sentencepiece (.model)",
    ),
    ("model.data.data_prefix.train", When::Set, SPLIT_FILES),
    ("model.data.data_prefix.validation", When::Set, SPLIT_FILES),
    ("model.data.data_prefix.test", When::Set, SPLIT_FILES),
    (
        "model.data.data_impl",
        When::OneOf(&["lazy", "cached"]),
        "fairseq's files are not read: make Megatron's .bin/.idx files (mmap)",
    ),
    ("model.data.no_seqlen_plus_one_input_tokens", When::True, "it is not built: set it to false"),
    (
        "model.data.pad_samples_to_global_batch_size",
        When::True,
        "batches are never filled up with empty samples: set it to false",
    ),
    (
        "model.data.chat",
        When::True,
        "NeMo's form of conversations is not built: write a tokenize stage whose task has a `chat_template`; it reads the same rows (`messages: conversations`)",
    ),
    ("model.data.train_ds.min_seq_length", When::AboveOne, ROW_LENGTH),
    ("model.data.validation_ds.min_seq_length", When::AboveOne, ROW_LENGTH),
    ("model.data.test_ds.min_seq_length", When::AboveOne, ROW_LENGTH),
    ("model.data.train_ds.add_sep", When::True, ADD_SEP),
    ("model.data.validation_ds.add_sep", When::True, ADD_SEP),
    ("model.data.test_ds.add_sep", When::True, ADD_SEP),
    ("model.data.train_ds.assistant_prompt", When::Set, ASSISTANT),
    ("model.data.validation_ds.assistant_prompt", When::Set, ASSISTANT),
    ("model.data.test_ds.assistant_prompt", When::Set, ASSISTANT),
    ("model.data.train_ds.hf_dataset", When::True, HF_DATASET),
    ("model.data.validation_ds.hf_dataset", When::True, HF_DATASET),
    ("model.data.test_ds.hf_dataset", When::True, HF_DATASET),
    ("model.data.train_ds.packed_sequence", When::True, PREPACKED),
    ("model.data.validation_ds.packed_sequence", When::True, PREPACKED),
    ("model.data.test_ds.packed_sequence", When::True, PREPACKED),
    (
        "model.optim.name",
        When::NotOneOf(&[
            "adamw",
            "adam",
            "fused_adam",
            "megatron_fused_adam",
            "distributed_fused_adam",
            "mcore_distributed_optim",
        ]),
        "it is not built: use adamw or distributed_fused_adam",
    ),
    (
        "model.optim.sched.name",
        When::NotOneOf(&["CosineAnnealing", "WarmupPolicy"]),
        "it is not built: use CosineAnnealing or WarmupPolicy",
    ),
    (
        "model.optim.sched.reduce_on_plateau",
        When::True,
        "a schedule that follows the loss is not built: set it to false",
    ),
    (
        "model.peft.peft_scheme",
        When::NotOneOf(&["none"]),
        "parameter-efficient fine-tuning is not built: set it to null, which trains all parameters",
    ),
    ("model.peft.restore_from_path", When::Set, "adapters are not read: set it to null"),
    ("checkpoint_dir", When::Set, "training checkpoints of NeMo are not read: set gpt_model_file"),
    ("checkpoint_name", When::Set, "training checkpoints of NeMo are not read: set gpt_model_file"),
    ("hparams_file", When::Set, "training checkpoints of NeMo are not read: set gpt_model_file"),
    ("server", When::True, "a server is not built: set it to false and list `prompts`"),
    ("web_server", When::True, "a web page is not built: set it to false and list `prompts`"),
];
