//! No silent key: each honoured key is changed, and the plan is seen to change where it should.

use serde_json::{Value as Json, json};
use serde_yaml::Value;
use sft_run::base::atomic_file;
use sft_run::base::digest::Digest;
use sft_run::plan::{self, Facts, Plan, fingerprint, wanted};
use sft_run::recipe::problem::Problem;
use sft_run::recipe::{Request, keys, load};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// One key's proof.
struct Row {
    /// The recipe that is changed.
    base: &'static str,
    /// `path=value` in YAML: the change.
    change: String,
    /// Settings beside it under which it matters, with `; ` between.
    under: String,
    /// Where the change shows: `STAGE` (what decides its output), `STAGE*` (its job, which says when
    /// something is logged and saved too), `STAGE<` (its inputs and backend), `@name`, `@folder`,
    /// `@checkpoints`, `@around`, `@missing`, `@headers`, or `!` (an error that names the key).
    seen: &'static str,
}

const SMALL: &str = include_str!("../../fixtures/plan/small.yaml");
const READY: &str = include_str!("../../fixtures/plan/ready_shards.yaml");
const ROWS: &str = "
name: rows
trainer: {accelerator: cpu, max_steps: 10, val_check_interval: 5}
model:
  global_batch_size: 8
  micro_batch_size: 2
  encoder_seq_length: 64
  num_layers: 2
  hidden_size: 32
  num_attention_heads: 4
  tokenizer: {library: huggingface, model: tokenizer.json}
  data:
    train_ds: {file_names: [a.jsonl]}
    validation_ds: {file_names: [b.jsonl]}
    test_ds: {file_names: [c.jsonl]}
  optim: {lr: 0.001}
";
const INFERENCE: &str = "
name: inference
trainer: {accelerator: cpu}
model:
  encoder_seq_length: 64
  num_layers: 2
  hidden_size: 32
  num_attention_heads: 4
  tokenizer: {library: huggingface, model: tokenizer.json}
gpt_model_file: model.safetensors
prompts: [one]
inference: {greedy: false}
";
/// What `extends` may name.
const BELOW: &str = "exp_manager: {explicit_log_dir: below}\n";

const OTHER_TOKENIZE: &str = "stages.other={tokenize: {sources: [{rows: z.jsonl, split: test, tasks: [{name: kind, text: body}]}]}}";
const FULL: &str =
    "model.activations_checkpoint_granularity=full; model.activations_checkpoint_num_layers=2";
const KEPT: &str = "exp_manager.checkpoint_callback_params={save_top_k: 3}";
const ROPE: &str = "model.position_embedding_type=rope";
const TEXT: &str = "stages.tokenize.tokenize.sources.0.tasks=[{name: kind, text: body}]";
const CHAT: &str =
    "stages.tokenize.tokenize.sources.0.tasks=[{name: kind, chat_template: tokenizer}]";
const NEMO: &str =
    "stages.tokenize.tokenize.sources.0.tasks=[{name: kind, prompt_template: '{input} {output}'}]";

/// Keys of the small recipe, which writes its stages.
const IN_SMALL: &[(&str, &str, &str)] = &[
    ("name=other", "", "@name"),
    ("restore_from_path=start", "", "load"),
    ("vars={run: b}", "vars={run: a}; exp_manager.name='${{ vars.run }}'", "@folder"),
    ("extends=below.yaml", "", "@folder"),
    ("sweep.parameters.NAME=[1, 2]", "", "@around"),
    ("sweep.sampler=tpe", "", "@around"),
    ("sweep.trials=9", "", "@around"),
    ("sweep.seed=9", "", "@around"),
    ("sweep.metric=loss", "", "@around"),
    ("sweep.mode=max", "", "@around"),
    ("sweep.asha=3", "", "@around"),
    ("verify.steps=9", "", "@around"),
    ("verify.tolerances.NAME=0.1", "", "@around"),
    ("notify.on_success=[tell]", "", "@around"),
    ("notify.on_failure=[tell]", "", "@around"),
    ("exp_manager.create_tensorboard_logger=true", "", "@around"),
    ("trainer.accelerator=gpu", "", "base<"),
    ("trainer.precision=bf16", "", "base"),
    ("trainer.max_steps=500", "", "base"),
    ("trainer.log_every_n_steps=7", "", "base*"),
    ("trainer.val_check_interval=50", "", "base"),
    ("trainer.limit_val_batches=2", "", "base"),
    ("trainer.accumulate_grad_batches=2", "", "!"),
    ("trainer.gradient_clip_val=0.5", "", "base"),
    ("exp_manager.explicit_log_dir=logs", "", "@folder"),
    ("exp_manager.exp_dir=results", "", "@folder"),
    ("exp_manager.name=other", "", "@folder"),
    ("exp_manager.version='9'", "", "@folder"),
    ("exp_manager.create_checkpoint_callback=false", "", "@checkpoints"),
    ("exp_manager.checkpoint_callback_params.save_top_k=2", "", "base"),
    ("exp_manager.checkpoint_callback_params.monitor=reduced_train_loss", KEPT, "base"),
    ("exp_manager.checkpoint_callback_params.mode=max", KEPT, "base"),
    ("exp_manager.checkpoint_callback_params.filename='{step}'", KEPT, "base"),
    ("exp_manager.checkpoint_callback_params.save_best_model=true", KEPT, "base"),
    ("model.micro_batch_size=4", "", "base"),
    ("model.global_batch_size=64", "", "base"),
    ("model.restore_from_path=start", "", "load"),
    ("model.megatron_legacy=true", "restore_from_path=start", "load"),
    ("model.seed=7", "", "load"),
    (
        "model.encoder_seq_length=512",
        "model.data.seq_length=null; model.max_position_embeddings=512",
        "base",
    ),
    ("model.max_position_embeddings=512", "", "load"),
    ("model.num_layers=6", "", "load"),
    ("model.hidden_size=48", "", "load"),
    ("model.ffn_hidden_size=100", "", "load"),
    ("model.num_attention_heads=8", "", "load"),
    ("model.num_query_groups=2", "", "load"),
    ("model.kv_channels=16", "", "load"),
    ("model.padded_vocab_size=640000", "", "load"),
    ("model.init_method_std=0.5", "", "load"),
    ("model.use_scaled_init_method=false", "", "load"),
    ("model.hidden_dropout=0.3", "", "base"),
    ("model.attention_dropout=0.3", "", "base"),
    ("model.ffn_dropout=0.3", "", "base"),
    ("model.normalization=rmsnorm", "model.bias=false", "load"),
    ("model.layernorm_epsilon=0.001", "", "load"),
    ("model.do_layer_norm_weight_decay=true", "", "base"),
    ("model.make_vocab_size_divisible_by=100", "", "load"),
    ("model.bias=false", "", "load"),
    ("model.activation=relu", "", "load"),
    ("model.openai_gelu=true", "model.bias_activation_fusion=false", "load"),
    ("model.bias_activation_fusion=false", "", "load"),
    (ROPE, "", "load"),
    ("model.rotary_percentage=0.5", ROPE, "load"),
    ("model.rotary_base=500", ROPE, "load"),
    ("model.seq_len_interpolation_factor=2", ROPE, "load"),
    ("model.share_embeddings_and_output_weights=false", "", "load"),
    ("model.use_parallel_residual=true", "", "load"),
    ("model.precision=16", "", "!"),
    ("model.native_amp_init_scale=1024", "trainer.precision=16", "base"),
    ("model.native_amp_growth_interval=7", "trainer.precision=16", "base"),
    ("model.hysteresis=1", "trainer.precision=16", "base"),
    ("model.tokenizer.library=sentencepiece", "", "tokenize"),
    ("model.tokenizer.type=b", "model.tokenizer.model=null; model.tokenizer.type=a", "tokenize<"),
    ("model.tokenizer.model=other.json", "", "tokenize<"),
    (
        "model.tokenizer.vocab_file=other.json",
        "model.tokenizer={library: megatron, vocab_file: a, merge_file: b}",
        "tokenize<",
    ),
    (
        "model.tokenizer.merge_file=other.txt",
        "model.tokenizer={library: megatron, vocab_file: a, merge_file: b}",
        "tokenize<",
    ),
    ("model.tokenizer.chat_template=other", "", "tokenize"),
    ("model.data.add_bos=true", "", "tokenize"),
    ("model.data.add_eos=false", "", "tokenize"),
    ("model.optim.name=adamw", "", "base"),
    ("model.optim.lr=0.5", "", "base"),
    ("model.optim.weight_decay=0.5", "", "base"),
    ("model.optim.betas=[0.5, 0.6]", "", "base"),
    ("model.optim.eps=0.0001", "", "base"),
    ("model.optim.sched.name=WarmupPolicy", "", "base"),
    ("model.optim.sched.warmup_steps=9", "model.optim.sched.warmup_ratio=null", "base"),
    ("model.optim.sched.warmup_ratio=0.2", "", "base"),
    ("model.optim.sched.constant_steps=9", "", "base"),
    ("model.optim.sched.constant_ratio=0.2", "model.optim.sched.constant_steps=null", "base"),
    ("model.optim.sched.min_lr=0.00001", "", "base"),
    ("model.optim.sched.max_steps=800", "", "base"),
    ("stages.tokenize.tokenize.sources.0.rows=z.jsonl", "", "tokenize<"),
    ("stages.tokenize.tokenize.sources.0.split.by=term", "", "tokenize"),
    ("stages.tokenize.tokenize.sources.0.split.validation=0.2", "", "tokenize"),
    ("stages.tokenize.tokenize.sources.0.split.test=0.2", "", "tokenize"),
    ("stages.tokenize.tokenize.sources.0.tasks.1.name=other", "", "tokenize"),
    ("stages.tokenize.tokenize.sources.0.tasks.1.share=0.2", "", "tokenize"),
    ("stages.tokenize.tokenize.sources.0.tasks.0.prompt=what", "", "tokenize"),
    ("stages.tokenize.tokenize.sources.0.tasks.0.answer=that", "", "tokenize"),
    ("stages.tokenize.tokenize.sources.0.tasks.0.text=other", TEXT, "tokenize"),
    (
        "stages.tokenize.tokenize.sources.0.tasks.0.prompt_template='{q}: {output}'",
        NEMO,
        "tokenize",
    ),
    (
        "stages.tokenize.tokenize.sources.0.tasks.0.label_key=c",
        "stages.tokenize.tokenize.sources.0.tasks=[{name: kind, prompt_template: '{input} {b}', label_key: b}]",
        "!",
    ),
    ("stages.tokenize.tokenize.sources.0.tasks.0.truncation_field=input", NEMO, "tokenize"),
    ("stages.tokenize.tokenize.sources.0.tasks.0.truncation_method=left", NEMO, "tokenize"),
    ("stages.tokenize.tokenize.sources.0.tasks.0.tokens_to_generate=5", NEMO, "tokenize"),
    ("stages.tokenize.tokenize.sources.0.tasks.0.answer_only_loss=false", "", "tokenize"),
    ("stages.tokenize.tokenize.sources.0.tasks.0.add_bos=true", "", "tokenize"),
    ("stages.tokenize.tokenize.sources.0.tasks.0.add_eos=false", "", "tokenize"),
    ("stages.tokenize.tokenize.sources.0.tasks.0.chat_template=other", CHAT, "tokenize"),
    ("stages.tokenize.tokenize.sources.0.tasks.0.messages=turns", CHAT, "tokenize"),
    ("stages.tokenize.tokenize.sources.0.tasks.0.date=2026-01-31", CHAT, "tokenize"),
    ("stages.shard.shard.data=other", OTHER_TOKENIZE, "shard<"),
    ("stages.shard.shard.packing=false", "", "shard"),
    ("stages.load.load.restore_from_path=start", "", "load"),
    ("stages.load.load.strict=false", "", "load"),
    ("stages.base.train.data=again", "stages.again={shard: {data: tokenize}}", "base<"),
    ("stages.base.train.model=other", "stages.other={load: {}}", "base<"),
    ("stages.base.train.checkpoint_every=7", "", "base*"),
    ("stages.tuned.train.with={trainer: {max_steps: 60}}", "", "tuned"),
    ("stages.evaluate.evaluate.model=base", "", "evaluate<"),
    ("stages.evaluate.evaluate.data=other", OTHER_TOKENIZE, "evaluate<"),
    ("stages.evaluate.evaluate.choices.rows=b.jsonl", CHOICES, "evaluate<"),
    ("stages.evaluate.evaluate.choices.prompt=b", CHOICES, "evaluate"),
    ("stages.evaluate.evaluate.choices.choices=b", CHOICES, "evaluate"),
    ("stages.evaluate.evaluate.choices.answer=b", CHOICES, "evaluate"),
    ("stages.evaluate.evaluate.choices.labels=b", CHOICES, "evaluate"),
    ("stages.evaluate.evaluate.choices.delimiter=b", CHOICES, "evaluate"),
    ("stages.evaluate.evaluate.split=validation", "", "evaluate"),
    ("stages.evaluate.evaluate.task=define", "", "evaluate"),
    ("stages.evaluate.evaluate.limit=5", "", "evaluate"),
    ("stages.evaluate.evaluate.metrics.0.name=b", PATTERN, "evaluate"),
    ("stages.evaluate.evaluate.metrics.0.regex=b", PATTERN, "evaluate"),
    (
        "stages.evaluate.evaluate.metrics.0.expression='2'",
        "stages.evaluate.evaluate.metrics=[{name: a, expression: '1'}]",
        "evaluate",
    ),
    (
        "stages.evaluate.evaluate.metrics.0.lexicon=b.tsv",
        "stages.evaluate.evaluate.metrics=[{name: a, lexicon: a.tsv}]",
        "evaluate<",
    ),
    ("stages.evaluate.evaluate.metrics.0.classifier=b", CLASSIFIER, "evaluate<"),
    ("stages.evaluate.evaluate.metrics.0.label=b", CLASSIFIER, "evaluate"),
    ("stages.evaluate.evaluate.metrics.0.with_prompt=true", CLASSIFIER, "evaluate"),
    ("stages.evaluate.evaluate.metrics.0.command=[b]", PROGRAM, "evaluate"),
    ("stages.evaluate.evaluate.metrics.0.timeout=5", PROGRAM, "evaluate"),
    ("stages.generate.generate.model=base", "", "generate<"),
    ("stages.generate.generate.prompts=[other]", "", "generate"),
    (
        "stages.generate.generate.prompts_file=b.txt",
        "stages.generate.generate={model: tuned, prompts_file: a.txt}",
        "generate<",
    ),
];

/// What is measured during training: keys of `stages.base.train.validate`.
const VALIDATED: &[(&str, &str, &str)] = &[
    ("data=other", "split=test", "base<"),
    ("split=test", "", "base"),
    ("task=define", "", "base"),
    ("limit=5", "", "base"),
    ("metrics.0.name=b", "metrics=[{name: a, regex: a}]", "base"),
    ("metrics.0.regex=b", "metrics=[{name: a, regex: a}]", "base"),
    ("metrics.0.expression='2'", "metrics=[{name: a, expression: '1'}]", "base"),
    ("metrics.0.lexicon=b.tsv", "metrics=[{name: a, lexicon: a.tsv}]", "base<"),
    ("metrics.0.classifier=b", "metrics=[{name: a, classifier: a}]", "base<"),
    ("metrics.0.label=b", "metrics=[{name: a, classifier: a}]", "base"),
    ("metrics.0.with_prompt=true", "metrics=[{name: a, classifier: a}]", "base"),
    ("metrics.0.command=[b]", "metrics=[{name: a, command: [a]}]", "base"),
    ("metrics.0.timeout=5", "metrics=[{name: a, command: [a]}]", "base"),
];
const VALIDATE: &str = "stages.base.train.validate={data: tokenize, metrics: [exact_match]}";
const BOTH: &str = "stages.base.train.validate={data: tokenize, metrics: [exact_match]}; \
     stages.tuned.train.validate={data: tokenize, metrics: [exact_match]}";
const STOPS: &str = "exp_manager.create_early_stopping_callback=true";

/// A judged set.
const CHOICES: &str = "stages.evaluate.evaluate={model: tuned, metrics: [acc], \
     choices: {rows: a.jsonl, prompt: a, choices: a, answer: a}}";
/// Metrics of the recipe's own.
const PATTERN: &str = "stages.evaluate.evaluate.metrics=[{name: a, regex: a}]";
const CLASSIFIER: &str = "stages.evaluate.evaluate.metrics=[{name: a, classifier: a}]";
const PROGRAM: &str = "stages.evaluate.evaluate.metrics=[{name: a, command: [a]}]";

/// Decoding: the same keys in evaluate and generate stages.
const DECODING: &[(&str, &str)] = &[
    ("use_greedy=true", ""),
    ("do_sample=false", "use_greedy: null"),
    ("temperature=0.3", ""),
    ("top_k=3", ""),
    ("top_p=0.3", ""),
    ("repetition_penalty=1.5", ""),
    ("repetition_penalty_rule=nemo", ""),
    ("max_length=9", ""),
    ("max_new_tokens=9", ""),
    ("min_length=2", ""),
    ("end_strings=[stop]", ""),
    ("stop_sequences=[stop]", ""),
    ("add_BOS=true", ""),
    ("compute_logprob=true", ""),
    ("all_probs=true", ""),
    ("seed=5", ""),
    ("batch_size=3", ""),
];

/// Keys of the recipe with ready token files.
const IN_READY: &[(&str, &str, &str)] = &[
    ("trainer.devices=16", "", "train"),
    ("trainer.num_nodes=4", "", "train"),
    (
        "exp_manager.checkpoint_callback_params.every_n_train_steps=7",
        "exp_manager.create_checkpoint_callback=true",
        "train*",
    ),
    ("model.tensor_model_parallel_size=2", "", "train"),
    ("model.pipeline_model_parallel_size=4", "", "train"),
    ("model.virtual_pipeline_model_parallel_size=2", "", "train"),
    ("model.sequence_parallel=false", "", "train"),
    ("model.resume_from_checkpoint=b", "model.resume_from_checkpoint=a", "train<"),
    ("exp_manager.resume_from_checkpoint=b", "exp_manager.resume_from_checkpoint=a", "train<"),
    ("model.num_layers_unfrozen=1", "", "train"),
    ("model.frozen=[embedding.*]", "", "train"),
    ("exp_manager.checkpoint_callback_params.save_nemo_on_train_end=true", "", "train"),
    ("model.megatron_amp_O2=false", "", "train"),
    ("model.activations_checkpoint_granularity=full", "", "@headers"),
    ("model.activations_checkpoint_method=block", FULL, "@headers"),
    ("model.activations_checkpoint_num_layers=1", FULL, "@headers"),
    ("model.data.data_prefix.dataset=b", "model.data.data_prefix={dataset: a}", "@missing"),
    ("model.data.data_prefix.ignored=b", "model.data.data_prefix={ignored: a}", "@missing"),
    ("model.data.data_prefix.0.dataset=b", "model.data.data_prefix=[{dataset: a}]", "@missing"),
    ("model.data.splits_string='8,1,1'", "", "train"),
    ("model.data.seq_length=1024", "", "train"),
    ("model.data.dataloader_type=cyclic", "", "train"),
    ("model.data.reset_position_ids=true", "", "train"),
    ("model.data.reset_attention_mask=true", "", "train"),
    ("model.data.eod_mask_loss=false", "", "train"),
];

/// Keys of the recipe with NeMo's row files.
const IN_ROWS: &[(&str, &str, &str)] = &[
    ("model.answer_only_loss=true", "", "tokenize"),
    ("model.data.train_ds.shuffle=false", "", "train"),
    ("model.data.train_ds.max_seq_length=32", "", "train"),
    ("model.data.validation_ds.metric.name=rouge", "model.data.test_ds=null", "evaluate"),
    ("model.data.test_ds.metric.name=rouge", "", "evaluate"),
];

/// Keys of every split's rows.
const OF_A_SPLIT: &[(&str, &str)] = &[
    ("file_names=[z.jsonl]", "tokenize<"),
    ("file_path=z.jsonl", "tokenize<"),
    ("global_batch_size=16", "!"),
    ("micro_batch_size=4", "!"),
    ("concat_sampling_probabilities=[0.5]", "!"),
    ("context_key=question", "tokenize"),
    ("label_key=answer", "tokenize"),
    ("add_eos=false", "tokenize"),
    ("add_bos=true", "tokenize"),
    ("separate_prompt_and_response_with_newline=true", "tokenize"),
    ("truncation_field=output", "tokenize"),
    ("truncation_method=left", "tokenize"),
    ("prompt_template='{input}: {output}'", "tokenize"),
    ("tokens_to_generate=5", "tokenize"),
];

/// Keys of NeMo's inference file.
const IN_INFERENCE: &[(&str, &str, &str)] = &[
    ("prompts=[two]", "", "generate"),
    ("gpt_model_file=other.safetensors", "", "load<"),
    ("inference.greedy=true", "", "generate"),
    ("inference.top_k=3", "", "generate"),
    ("inference.top_p=0.3", "", "generate"),
    ("inference.temperature=0.3", "", "generate"),
    ("inference.add_BOS=false", "", "generate"),
    ("inference.tokens_to_generate=9", "", "generate"),
    ("inference.repetition_penalty=1.5", "", "generate"),
    ("inference.min_tokens_to_generate=2", "", "generate"),
    ("inference.end_strings=[stop]", "", "generate"),
    ("inference.all_probs=true", "", "generate"),
    ("inference.compute_logprob=true", "", "generate"),
];

fn rows() -> Vec<Row> {
    let written =
        [(SMALL, IN_SMALL), (READY, IN_READY), (ROWS, IN_ROWS), (INFERENCE, IN_INFERENCE)];
    let mut rows: Vec<Row> = Vec::new();
    for (base, table) in written {
        rows.extend(table.iter().map(|&(change, under, seen)| {
            let change = change.to_owned();
            Row { base, change, under: under.to_owned(), seen }
        }));
    }
    for stage in ["evaluate", "generate"] {
        for (change, under) in DECODING {
            let change = format!("stages.{stage}.{stage}.gen_kwargs.{change}");
            // The evaluate stage of the recipe has settings of its own.
            let under = if under.is_empty() {
                "stages.evaluate.evaluate.gen_kwargs={}"
            } else {
                "stages.evaluate.evaluate.gen_kwargs={use_greedy: null}"
            };
            rows.push(Row { base: SMALL, change, under: under.to_owned(), seen: stage });
        }
    }
    let below = "stages.base.train.validate";
    for (change, with, seen) in VALIDATED {
        let with = if with.is_empty() { String::new() } else { format!("; {below}.{with}") };
        let other =
            if *change == "data=other" { format!("; {OTHER_TOKENIZE}") } else { String::new() };
        let (change, under) = (format!("{below}.{change}"), format!("{VALIDATE}{with}{other}"));
        rows.push(Row { base: SMALL, change, under, seen });
    }
    for (change, under) in DECODING {
        let with = if under.is_empty() { "{}" } else { "{use_greedy: null}" };
        let under = format!("{VALIDATE}; {below}.gen_kwargs={with}");
        let change = format!("{below}.gen_kwargs.{change}");
        rows.push(Row { base: SMALL, change, under, seen: "base" });
    }
    let watched = "exp_manager.early_stopping_callback_params";
    for (key, with) in [
        ("monitor=val_metrics/avg_exact_match", BOTH),
        ("mode=max", ""),
        ("min_delta=0.5", ""),
        ("patience=3", ""),
    ] {
        let (change, under) = (format!("{watched}.{key}"), format!("{STOPS}; {with}"));
        rows.push(Row { base: SMALL, change, under, seen: "base" });
    }
    rows.push(Row { base: SMALL, change: STOPS.to_owned(), under: String::new(), seen: "base" });
    for split in ["train_ds", "validation_ds", "test_ds"] {
        for (change, seen) in OF_A_SPLIT {
            let change = format!("model.data.{split}.{change}");
            rows.push(Row { base: ROWS, change, under: String::new(), seen });
        }
    }
    rows
}

/// The key's name in the table of keys: `stages.NAME.…`, `[]` for an item of a list.
fn key(row: &Row) -> String {
    let (path, _) = row.change.split_once('=').unwrap();
    let mut name = String::new();
    for (at, step) in path.split('.').enumerate() {
        let step = if at == 1 && path.starts_with("stages.") { "NAME" } else { step };
        if step.parse::<usize>().is_ok() {
            name.push_str("[]");
        } else {
            let dot = if at == 0 { "" } else { "." };
            name.push_str(dot);
            name.push_str(step);
        }
    }
    name
}

fn set(recipe: &mut Value, change: &str) {
    let (path, value) = change.split_once('=').unwrap();
    let mut at = recipe;
    for step in path.split('.') {
        at = if let Ok(index) = step.parse::<usize>() {
            &mut at[index]
        } else {
            if at.is_null() {
                *at = Value::Mapping(serde_yaml::Mapping::new());
            }
            let step = Value::String(step.to_owned());
            at.as_mapping_mut().unwrap().entry(step).or_insert(Value::Null)
        };
    }
    *at = serde_yaml::from_str(value).unwrap();
}

fn compile(folder: &Path, recipe: &Value) -> Result<Plan, Vec<Problem>> {
    let path = folder.join("recipe.yaml");
    atomic_file::write(&path, serde_yaml::to_string(recipe).unwrap().as_bytes()).unwrap();
    let checked = load(&Request {
        path: &path,
        overrides: &[],
        variables: &[],
        environment: &BTreeMap::new(),
        hparams: None,
        git: None,
        gpu: None,
    })?
    .0;
    // Every file exists, with its path for its content.
    let named = |path: std::path::PathBuf| {
        let digest = Digest::of_bytes(path.as_os_str().as_encoded_bytes());
        (path, digest)
    };
    let digests = wanted(&checked).files.into_iter().map(named).collect();
    let facts = Facts {
        digests,
        vocab_size: Some(1000),
        gpus: 64,
        built_for_gpus: true,
        ..Facts::default()
    };
    plan::compile(&checked, &facts)
}

/// The part of a plan that `seen` names.
fn part(plan: &Plan, seen: &str) -> Json {
    match seen {
        "@name" => json!(plan.name()),
        "@folder" => json!(plan.run_folder()),
        "@checkpoints" => json!(plan.keeps_checkpoints()),
        "@around" => json!(plan.around()),
        "@missing" => json!(plan.missing()),
        "@headers" => json!(plan.headers()),
        _ => {
            let name = seen.trim_end_matches(['<', '*']);
            let stage = plan.stage(name).unwrap_or_else(|| panic!("no stage {name}"));
            let sources = || stage.inputs.iter().map(|(name, from)| (name, from.describe()));
            if seen.ends_with('*') {
                serde_json::to_value(&stage.job).unwrap()
            } else if seen.ends_with('<') {
                json!([sources().collect::<BTreeMap<_, _>>(), stage.backend])
            } else {
                fingerprint::settings(stage)
            }
        }
    }
}

/// What is wrong with a row, if anything.
fn silent(folder: &Path, row: &Row) -> Option<String> {
    let mut recipe: Value = serde_yaml::from_str(row.base).unwrap();
    row.under.split("; ").filter(|one| !one.is_empty()).for_each(|one| set(&mut recipe, one));
    let told = |problems: &[Problem]| {
        let told = problems.iter().map(|problem| problem.message.clone()).collect::<Vec<_>>();
        told.join("; ")
    };
    let before = match compile(folder, &recipe) {
        Ok(plan) => plan,
        Err(problems) => return Some(format!("the recipe is wrong: {}", told(&problems))),
    };
    set(&mut recipe, &row.change);
    let after = compile(folder, &recipe);
    if row.seen == "!" {
        let name = key(row);
        let last = name.rsplit('.').next().unwrap();
        let Err(problems) = after else { return Some("no error".to_owned()) };
        let named = problems.iter().any(|one| {
            let path = one.path.as_ref().map(ToString::to_string).unwrap_or_default();
            let help = one.help.as_deref().unwrap_or_default();
            path.ends_with(last) || one.message.contains(last) || help.contains(last)
        });
        return (!named).then(|| format!("the error names another key: {}", told(&problems)));
    }
    match after {
        Err(problems) => Some(format!("refused: {}", told(&problems))),
        Ok(after) => (part(&before, row.seen) == part(&after, row.seen))
            .then(|| format!("nothing changes in {}", row.seen)),
    }
}

#[test]
fn every_honoured_key_changes_something() {
    let rows = rows();
    let shown: BTreeSet<String> = rows.iter().map(key).collect();
    let honoured: BTreeSet<String> = keys::all()
        .into_iter()
        .filter(|key| key.status == keys::Status::Honoured)
        .map(|key| key.path)
        .collect();
    let unproved: Vec<_> = honoured.difference(&shown).collect();
    let stray: Vec<_> = shown.difference(&honoured).collect();
    assert!(unproved.is_empty(), "honoured keys without a row here: {unproved:#?}");
    assert!(stray.is_empty(), "rows for keys that are not honoured: {stray:#?}");
    let folder = tempfile::tempdir().unwrap();
    atomic_file::write(&folder.path().join("below.yaml"), BELOW.as_bytes()).unwrap();
    let wrong: Vec<String> = rows
        .iter()
        .filter_map(|row| Some(format!("{}: {}", row.change, silent(folder.path(), row)?)))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
