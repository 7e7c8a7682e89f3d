//! Recipes compiled to plans: the jobs with every default, what is missing, where values came from.

use super::fixture::{Events, Workshop, hashes_hidden};
use crate::recipe_check::load_with;
use serde_json::Value;
use sft_run::base::digest::Digest;
use sft_run::plan::{self, Facts, Plan, fingerprint, wanted};
use sft_run::recipe::CheckedRecipe;
use sft_run::runner;
use sft_run::spec::event::Sink;
use sft_run::spec::job::Job;
use sft_run::stages::{Folders, Outcome};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

const SMALL: &str = "tests/fixtures/plan/small.yaml";
const READY: &str = "tests/fixtures/plan/ready_shards.yaml";

fn recipe(name: &str, overrides: &[&str]) -> CheckedRecipe {
    // Relative, as people give it: this is what origins show.
    load_with(Path::new(name), overrides).unwrap_or_else(|problems| panic!("{problems:#?}")).0
}

/// Facts of a world in which every file exists, with its path for its content.
fn whole_world(recipe: &CheckedRecipe) -> Facts {
    let named = |path: PathBuf| {
        let digest = Digest::of_bytes(path.as_os_str().as_encoded_bytes());
        (path, digest)
    };
    let digests = wanted(recipe).files.into_iter().map(named).collect();
    Facts { digests, vocab_size: Some(1000), gpus: 8, built_for_gpus: true, ..Facts::default() }
}

fn compiled(name: &str, overrides: &[&str]) -> Plan {
    let recipe = recipe(name, overrides);
    plan::compile(&recipe, &whole_world(&recipe)).unwrap()
}

fn settings(plan: &Plan, stage: &str) -> Value {
    fingerprint::settings(plan.stage(stage).unwrap())
}

#[test]
fn every_default_is_filled_in() {
    let plan = compiled(SMALL, &[]);
    let jobs: BTreeMap<_, _> = plan
        .stages()
        .iter()
        .map(|stage| (stage.name.as_str(), fingerprint::settings(stage)))
        .collect();
    insta::assert_json_snapshot!(jobs);
}

#[test]
fn a_recipe_without_stages_gets_those_its_data_calls_for() {
    let plan = compiled(READY, &[]);
    let names: Vec<_> = plan.stages().iter().map(|stage| stage.name.as_str()).collect();
    assert_eq!(names, ["load", "train"]);
    let train = settings(&plan, "train");
    assert_eq!(train["model"]["architecture"]["padded_vocab_size"], 1024);
    assert_eq!(train["trainer"]["degrees"]["data"], 2);
    assert_eq!(train["model"]["data"]["source"]["prefixes"]["weights"][1], 0.6);
    let inputs: Vec<_> = plan.stage("train").unwrap().inputs.keys().map(String::as_str).collect();
    assert_eq!(inputs, ["model", "prefix.0", "prefix.1"]);
    assert_eq!(plan.run_folder(), Path::new("/results/ready/3"));
    assert!(!plan.keeps_checkpoints());
    insta::assert_snapshot!(plan.headers()[0]);
}

#[test]
fn settings_of_one_stage_leave_the_others_alone() {
    let plan = compiled(SMALL, &[]);
    let (base, tuned) = (settings(&plan, "base"), settings(&plan, "tuned"));
    assert_eq!(
        (&base["trainer"]["max_steps"], &base["model"]["optim"]["lr"]),
        (&400.into(), &3e-3.into())
    );
    assert_eq!(
        (&tuned["trainer"]["max_steps"], &tuned["model"]["optim"]["lr"]),
        (&50.into(), &1e-4.into())
    );
    // A ratio counts the steps of its own stage.
    assert_eq!(base["model"]["optim"]["sched"]["warmup_steps"], 20);
    assert_eq!(tuned["model"]["optim"]["sched"]["warmup_steps"], 2);
}

#[test]
fn values_know_where_they_were_written() {
    let plan = compiled(SMALL, &["model.optim.lr=1e-3", "model.num_layers=6"]);
    let origin = |stage: &str, path: &str| {
        plan.stage(stage).unwrap().origins.get(path).cloned().unwrap_or_default()
    };
    let file = SMALL;
    assert_eq!(origin("base", "model.optim.lr"), "override 1");
    assert_eq!(origin("tuned", "model.optim.lr"), format!("{file}:47"));
    assert_eq!(origin("base", "model.architecture.num_layers"), "override 2");
    assert_eq!(origin("base", "model.optim.betas.1"), format!("{file}:27"));
    assert_eq!(origin("base", "trainer.max_steps"), format!("{file}:3"));
    assert_eq!(origin("tuned", "trainer.max_steps"), format!("{file}:46"));
    assert_eq!(origin("tokenize", "stage.sources.0.tasks.1.share"), format!("{file}:37"));
    assert_eq!(origin("tokenize", "stage.sources.0.split.by_hash.field"), format!("{file}:34"));
    assert_eq!(
        origin("tokenize", "stage.sources.0.tasks.0.format.templates.answer"),
        format!("{file}:36")
    );
    assert_eq!(origin("shard", "stage.packing"), format!("{file}:38"));
    assert_eq!(origin("base", "trainer.degrees.tensor"), format!("{file}:10"));
    // Nobody wrote these.
    assert_eq!(origin("base", "model.optim.eps"), "");
    assert_eq!(origin("base", "model.architecture.ffn_hidden_size"), "");
    assert_eq!(origin("tokenize", "stage.sources.0.tasks.0.share"), "");
}

#[test]
fn a_plan_made_on_other_files_is_refused() {
    let (shop, plan) = (Workshop::new(), compiled(SMALL, &[]));
    let store = shop.store();
    let nothing = |_: &Job, _: &Folders, _: &dyn Sink, _: &AtomicBool| Ok(Outcome::default());
    let stop = AtomicBool::new(false);
    let run = runner::run(&plan, &shop.settings(&store), &nothing, &Events::default(), &stop);
    assert!(matches!(run, Err(runner::Error::InputChanged { .. })), "{run:?}");
}

#[test]
fn what_is_missing_is_listed_with_the_key_to_set() {
    for (name, path) in [("small", SMALL), ("ready_shards", READY)] {
        let recipe = recipe(path, &[]);
        let plan = plan::compile(&recipe, &Facts::default()).unwrap();
        let lines: Vec<_> = plan.missing().iter().map(ToString::to_string).collect();
        insta::assert_snapshot!(name, lines.join("\n"));
    }
    let nothing = compiled(SMALL, &[]);
    assert!(nothing.missing().is_empty());
}

#[test]
fn a_name_of_a_data_set_is_no_data() {
    let plan = compiled(READY, &["model.data.data_prefix=[{dataset: hh}]"]);
    let lines: Vec<_> = plan.missing().iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(lines.join("\n"));
}

/// The recipes that people bring: each compiles here, where neither their GPUs nor their data are,
/// and says what it would need.
#[test]
fn shipped_recipes_plan_and_say_what_they_lack() {
    let shop = Workshop::new();
    for name in [
        "megatron_1.3b",
        "megatron_2b",
        "megatron_20b",
        "megatron_65b",
        "sft_megatron_20b",
        "megatron_llama2_7b",
    ] {
        let recipe = recipe(&format!("recipes/{name}.yaml"), &[]);
        let store = shop.store();
        let facts = runner::facts(&wanted(&recipe), &store).unwrap();
        let plan = plan::compile(&recipe, &facts).unwrap();
        let preview = runner::preview(&plan, &shop.settings(&store)).unwrap().to_string();
        insta::assert_snapshot!(name, hashes_hidden(&preview));
        let error = shop.try_run(&plan, &Events::default()).unwrap_err();
        assert!(matches!(error, runner::Error::Missing(_)), "{error}");
        assert!(!store.root().join("partial").exists());
    }
}

/// NeMo's inference files only load and generate: nothing brings a tokenizer along, so the recipe's
/// own goes in.
#[test]
fn a_model_that_was_only_loaded_gets_the_recipes_tokenizer() {
    let plan = compiled(SMALL, &["stages.generate.generate.model=load"]);
    assert_eq!(settings(&plan, "generate")["model"]["tokenizer"], "hugging_face");
    let inputs: Vec<_> = plan.stage("generate").unwrap().inputs.keys().collect();
    assert_eq!(inputs, ["model", "tokenizer.model"]);
    let trained = compiled(SMALL, &[]);
    assert_eq!(settings(&trained, "generate")["model"]["tokenizer"], Value::Null);
}
