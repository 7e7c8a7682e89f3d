//! A small recipe's plan with stand-ins for its stages, which write what they were given.

use serde_json::{Value, json};
use sft_run::artifacts::{Artifact, Store};
use sft_run::base::atomic_file;
use sft_run::base::digest::Digest;
use sft_run::plan::{Backend, Draft, Outside, Plan, Source, Stage};
use sft_run::runner::{self, Decision, Error, Preview, Report, Settings};
use sft_run::spec::event::{Event, Sink};
use sft_run::spec::job::Job;
use sft_run::stages::{self, Folders, Outcome};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

/// The settings of one job of each kind, none of them a default.
pub(super) fn job_json(kind: &str) -> Value {
    let architecture = json!({
        "num_layers": 4, "hidden_size": 96, "ffn_hidden_size": 384, "num_attention_heads": 4,
        "num_query_groups": 2, "kv_channels": 24, "vocab_size": 1000, "padded_vocab_size": 1024,
        "max_position_embeddings": 256, "position_embedding_type": "learned_absolute",
        "rotary_percentage": 0.5, "rotary_base": 10000.0, "seq_len_interpolation_factor": 2.0,
        "normalization": "layernorm1p", "layernorm_epsilon": 1e-5, "activation": "geglu",
        "bias": false, "share_embeddings_and_output_weights": false, "hidden_dropout": 0.1,
        "attention_dropout": 0.2, "ffn_dropout": 0.3, "init_method_std": 0.02,
        "use_scaled_init_method": true
    });
    let generation = json!({
        "use_greedy": true, "temperature": 0.7, "top_k": 5, "top_p": 0.9,
        "repetition_penalty": 1.2, "repetition_penalty_rule": "nemo", "min_length": 1,
        "max_length": 8, "end_strings": ["###"], "add_bos": true, "compute_logprob": true, "all_probs": true, "seed": 3, "batch_size": 16
    });
    let task = |name: &str, format: Value| {
        json!({"name": name, "share": 0.5, "format": format, "answer_only_loss": true,
               "add_bos": true, "add_eos": true})
    };
    match kind {
        "tokenize" => json!({"tokenize": {
            "model": {"tokenizer": "gpt2_bpe", "encoder_seq_length": 256},
            "stage": {"sources": [
                {"split": {"by_hash": {"field": "gloss", "validation": 0.01, "test": 0.04}},
                 "tasks": [
                    task("kind", json!({"templates": {"prompt": "{{ a }}:", "answer": "{{ b }}"}})),
                    task("all", json!({"text": {"field": "text"}})),
                    task("nemo", json!({"nemo": {
                        "prompt_template": "{input} {output}", "label_key": "output",
                        "truncation_field": ["input"], "truncate_left": true,
                        "tokens_to_generate": 4}}))]},
                {"split": {"all": "validation"}, "tasks": [task("rest", json!({"text": {"field": "rest"}}))]}]}}}),
        "shard" => json!({"shard": {"model": {"encoder_seq_length": 256, "seed": 1234},
                                    "stage": {"packing": true}}}),
        "load" => json!({"load": {"model": {
            "architecture": architecture, "seed": 1234, "restore": false,
            "megatron_legacy": true}}}),
        "train" => json!({"train": {
            "model": {"architecture": architecture, "encoder_seq_length": 256,
                "global_batch_size": 32, "micro_batch_size": 8, "seed": 1234,
                "optim": {"name": "adamw", "lr": 6e-5, "weight_decay": 0.1, "betas": [0.9, 0.95],
                    "eps": 1e-8, "do_layer_norm_weight_decay": false,
                    "sched": {"name": "CosineAnnealing", "warmup_steps": 20, "constant_steps": 5,
                              "min_lr": 1e-5, "max_steps": 400}},
                "megatron_amp_O2": false,
                "loss_scaling": {
                    "native_amp_init_scale": 65536.0,
                    "native_amp_growth_interval": 1000,
                    "hysteresis": 2,
                },
                "data": {"source": {"prefixes": {"weights": [0.3], "splits": [0.9, 0.05, 0.05]}},
                    "reset_position_ids": true, "reset_attention_mask": true,
                    "eod_mask_loss": true, "shuffle": true}},
            "trainer": {"max_steps": 400, "val_check_interval": 100, "limit_val_batches": 4,
                "gradient_clip_val": 1.0, "precision": "fp32",
                "degrees": {"data": 2, "pipeline": 2, "virtual_pipeline": 2, "tensor": 2,
                            "sequence": true},
                "log_every_n_steps": 1},
            "stage": {"checkpoint_every": 50, "keep": {
                "save_top_k": 2, "monitor": "val_loss", "more_is_better": false,
                "filename": "{step}", "save_best_model": false}}}}),
        "evaluate" => json!({"evaluate": {"stage": {"split": "test", "task": "kind",
            "limit": 2500, "metrics": ["exact_match", "loss"], "gen_kwargs": generation}}}),
        "generate" => json!({"generate": {"model": {"tokenizer": "sentence_piece"}, "stage": {
            "prompts": ["define lighthouse:"], "gen_kwargs": generation}}}),
        other => panic!("no job of kind {other}"),
    }
}

/// A job of `kind`, with the values at JSON pointers replaced.
pub(super) fn job(kind: &str, changes: &[(&str, Value)]) -> Job {
    let mut value = job_json(kind);
    for (pointer, new) in changes {
        let place = value.pointer_mut(pointer).unwrap_or_else(|| panic!("no {pointer}"));
        *place = new.clone();
    }
    serde_json::from_value(value).unwrap()
}

/// A stage of `kind` whose inputs come from the named stages.
pub(super) fn stage(name: &str, kind: &str, inputs: &[(&str, &str)]) -> Stage {
    let from =
        |(input, stage): &(&str, &str)| ((*input).to_owned(), Source::Stage((*stage).to_owned()));
    let computes = ["train", "evaluate", "generate"].contains(&kind);
    Stage {
        name: name.to_owned(),
        job: job(kind, &[]),
        inputs: inputs.iter().map(from).collect(),
        backend: computes.then_some(Backend::Cpu),
        origins: BTreeMap::new(),
    }
}

/// A file from outside, hashed now.
pub(super) fn file(path: &Path) -> Source {
    Source::File(Outside {
        path: path.to_owned(),
        written: "data/rows.jsonl".to_owned(),
        endings: &[],
        digest: Digest::of_file(path).ok(),
    })
}

/// The stages of the quickstart, in a recipe's order, over `rows`.
pub(super) fn stages(rows: &Path) -> Vec<Stage> {
    let mut tokenize = stage("tokenize", "tokenize", &[]);
    tokenize.inputs.insert("rows.0".to_owned(), file(rows));
    vec![
        tokenize,
        stage("shard", "shard", &[("data", "tokenize")]),
        stage("load", "load", &[]),
        stage("train", "train", &[("data", "shard"), ("model", "load")]),
        stage("evaluate", "evaluate", &[("data", "tokenize"), ("model", "train")]),
        stage("generate", "generate", &[("model", "train")]),
    ]
}

/// Seals a plan of `stages`.
pub(super) fn seal(stages: Vec<Stage>) -> Plan {
    Draft { name: "small".to_owned(), stages, keeps_checkpoints: true, ..Draft::default() }
        .seal()
        .unwrap()
}

/// Keeps all events.
#[derive(Default)]
pub(super) struct Events(pub(super) Mutex<Vec<Event>>);

impl Sink for Events {
    fn emit(&self, event: Event) {
        self.0.lock().unwrap().push(event);
    }
}

impl Events {
    /// The texts of all notes.
    pub(super) fn notes(&self) -> Vec<String> {
        let note = |event: &Event| match event {
            Event::Note { text } => Some(text.clone()),
            _ => None,
        };
        self.0.lock().unwrap().iter().filter_map(note).collect()
    }
}

/// A folder with a row file, a cache and a lock file.
pub(super) struct Workshop {
    pub(super) folder: tempfile::TempDir,
    pub(super) rows: PathBuf,
    pub(super) lock: PathBuf,
    pub(super) environment: BTreeMap<String, String>,
}

impl Workshop {
    pub(super) fn new() -> Workshop {
        let folder = tempfile::tempdir().unwrap();
        let rows = folder.path().join("rows.jsonl");
        overwrite(&rows, "row one\nrow two\n");
        let lock = folder.path().join("small.lock");
        let environment = BTreeMap::from([("machine".to_owned(), "one".to_owned())]);
        Workshop { folder, rows, lock, environment }
    }

    pub(super) fn store(&self) -> Store {
        Store::open(&self.folder.path().join("cache"))
    }

    pub(super) fn settings<'a>(&'a self, store: &'a Store) -> Settings<'a> {
        let environment = self.environment.clone();
        Settings { environment, ..Settings::new(store, &self.lock) }
    }

    /// Runs `plan` with stand-ins, or says why not.
    pub(super) fn try_run(&self, plan: &Plan, events: &Events) -> Result<Report, Error> {
        let store = self.store();
        let settings = self.settings(&store);
        runner::run(plan, &settings, &stand_in, events, &AtomicBool::new(false))
    }

    /// Runs `plan` with stand-ins.
    pub(super) fn run(&self, plan: &Plan) -> Report {
        self.try_run(plan, &Events::default()).unwrap()
    }

    /// What a run of `plan` would do.
    pub(super) fn preview(&self, plan: &Plan) -> Preview {
        let store = self.store();
        runner::preview(plan, &self.settings(&store)).unwrap()
    }
}

/// Writes a file in place, as an editor or a careless script would.
pub(super) fn overwrite(path: &Path, text: &str) {
    File::create(path).unwrap().write_all(text.as_bytes()).unwrap();
}

/// The text of a plan without its fingerprints, which change with every version of a stage.
pub(super) fn hashes_hidden(text: &str) -> String {
    let hash = regex::Regex::new(r"\b[0-9a-f]{8}\b").unwrap();
    hash.replace_all(text, "xxxxxxxx").into_owned()
}

/// Names of the stages that ran.
pub(super) fn ran(report: &Report) -> Vec<&str> {
    let ran = report.stages.iter().filter(|done| done.decision.runs());
    ran.map(|done| done.stage.as_str()).collect()
}

/// Names of the stages that were up to date.
pub(super) fn up_to_date(report: &Report) -> Vec<&str> {
    let same = report.stages.iter().filter(|done| done.decision == Decision::UpToDate);
    same.map(|done| done.stage.as_str()).collect()
}

/// The finished stage called `name`.
pub(super) fn artifact<'a>(report: &'a Report, name: &str) -> &'a Artifact {
    &report.stages.iter().find(|done| done.stage == name).unwrap().artifact
}

/// Stands in for a stage: its output is its job and the content of its inputs, so that it differs
/// exactly when one of them does. tokenize forgets the case of its rows, as a lower-casing tokenizer
/// would.
#[expect(clippy::unnecessary_wraps, reason = "it has the form of `stages::run`")]
pub(super) fn stand_in(
    job: &Job,
    folders: &Folders,
    _: &dyn Sink,
    _: &AtomicBool,
) -> Result<Outcome, stages::Error> {
    let names: BTreeSet<_> = folders.inputs.keys().collect();
    let mut text = serde_json::to_string(job).unwrap();
    for name in names {
        let path = &folders.inputs[name];
        let content = if path.is_dir() {
            Digest::of_folder(path).unwrap().to_string()
        } else {
            fs::read_to_string(path).unwrap().to_lowercase()
        };
        write!(text, "\n{name}: {content}").unwrap();
    }
    if job.kind() == "train" {
        atomic_file::write(&folders.output.join("checkpoint/model.safetensors"), b"weights")
            .unwrap();
    }
    atomic_file::write(&folders.output.join("output.txt"), text.as_bytes()).unwrap();
    Ok(Outcome { facts: BTreeMap::from([("bytes".to_owned(), text.len() as f64)]) })
}
