//! Every lint: the change that calls it out of a recipe that has none.

use super::{file, load_with};
use std::collections::BTreeSet;

/// Without it a stage of the recipe would end before its first validation.
const LONGER: &str = "stages.tuned.train.with.trainer.max_steps=400";

/// Overrides of tests/fixtures/plan/small.yaml, with `; ` between, the lint, and words of it.
const CASES: &[(&str, &str, &str)] = &[
    ("++model.sequence_parallel=true", "lint::sequence_parallel", "one tensor rank"),
    (
        "++model.megatron_legacy=true; ++restore_from_path=null",
        "lint::megatron_legacy",
        "none is read",
    ),
    ("++model.ffn_hidden_size=100", "lint::ffn_hidden_size", "4 × hidden_size = 384 wide, not 100"),
    (
        "model.data.seq_length=128",
        "lint::short_sequences",
        "128 tokens, though the model takes 256",
    ),
    (
        "++model.activations_checkpoint_granularity=selective; ++model.activations_checkpoint_num_layers=1",
        "lint::selective_recompute",
        "activations_checkpoint_num_layers means nothing",
    ),
    (
        "++model.activations_checkpoint_granularity=selective; ++model.activations_checkpoint_num_layers=1; \
         ++model.activations_checkpoint_method=uniform",
        "lint::selective_recompute",
        "activations_checkpoint_method and activations_checkpoint_num_layers mean nothing",
    ),
    (
        "++model.activations_checkpoint_num_layers=1",
        "lint::no_recompute",
        "means nothing while nothing is recomputed",
    ),
    ("trainer.limit_val_batches=0", "lint::validation_off", "looks at no batch"),
    ("trainer.val_check_interval=1000", "lint::validation_beyond_run", "only at its end"),
    ("++model.optim.sched.max_steps=300", "lint::schedule_length", "300 steps, the run has 400"),
    (
        "model.optim.sched.constant_steps=100000",
        "lint::constant_steps",
        "the run stays at min_lr 1e-4, not at lr 0.003",
    ),
    (
        "~model.optim.sched.warmup_ratio; ++model.optim.sched.warmup_steps=500",
        "lint::warmup_beyond_run",
        "before the learning rate reaches its peak",
    ),
    ("++verify={}; model.hidden_dropout=0.1", "lint::dropout_in_verify", "hidden_dropout 0.1"),
    (
        "++stages.evaluate.evaluate.gen_kwargs.top_k=5",
        "lint::greedy_sampling",
        "top_k has no effect on greedy decoding",
    ),
    (
        "~stages.tokenize; ~stages.shard; ~stages.evaluate; ~stages.generate; ~stages.base; \
         ~stages.tuned.train.data; stages.tuned.train.model=load; \
         ++model.data.data_prefix=[1.0, a]; ++model.tokenizer.chat_template=x",
        "lint::chat_template",
        "a tokenize stage writes, and there is none",
    ),
    (
        "++stages.tokenize.tokenize.sources.0.tasks.1.add_eos=false",
        "lint::no_end",
        "task `define` never shows where an answer ends",
    ),
];

#[test]
fn every_lint_has_its_cause() {
    let path = file("tests/fixtures/plan/small.yaml");
    let (_, none) = load_with(&path, &[LONGER]).expect("it loads");
    assert!(none.is_empty(), "{none:?}");
    for (changes, code, words) in CASES {
        let overrides: Vec<&str> = changes.split("; ").chain([LONGER]).collect();
        let (_, found) =
            load_with(&path, &overrides).unwrap_or_else(|error| panic!("{changes}: {error:?}"));
        // Two train stages may deserve the same.
        let found: Vec<_> = found.iter().filter(|lint| lint.code == *code).collect();
        assert!((1..=2).contains(&found.len()), "{changes}");
        assert!(found[0].message.contains(words), "{}", found[0].message);
        assert!(found[0].help.is_some(), "{code}: no advice");
    }
}

#[test]
fn numbers_that_yaml_1_1_reads_otherwise_are_pointed_at() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("recipe.yaml");
    let text = std::fs::read_to_string(file("tests/fixtures/plan/small.yaml")).expect("a recipe");
    let text = text
        .replace("max_steps: 400", "max_steps: 0620")
        .replace("seed: 1234", "seed: 1:30")
        .replace("name: small\n", "name: '017'\n");
    sft_run::base::atomic_file::write(&path, text.as_bytes()).expect("a file");
    let (_, lints) = load_with(&path, &[]).expect("it loads");
    let told: Vec<_> = lints.iter().filter(|lint| lint.code == "lint::spelled_number").collect();
    let messages: Vec<&str> = told.iter().map(|lint| lint.message.as_str()).collect();
    assert_eq!(
        messages,
        [
            "`0620` is the number 400: YAML 1.1 reads digits after a leading zero as octal",
            "`1:30` is the number 90: YAML 1.1 reads digits with colons between as base 60",
        ]
    );
    assert_eq!(told[0].help.as_deref(), Some("write 400, or '0620' for the text"));
}

#[test]
fn every_lint_of_the_program_is_in_the_table() {
    let source = ["src/recipe/lints.rs", "src/recipe/spelled_numbers.rs"]
        .map(|name| std::fs::read_to_string(file(name)).expect("a source file"))
        .concat();
    let written: BTreeSet<&str> =
        source.split('"').filter(|word| word.starts_with("lint::")).collect();
    let mut shown: BTreeSet<&str> = CASES.iter().map(|(_, code, _)| *code).collect();
    shown.insert("lint::spelled_number");
    assert_eq!(written, shown);
}
