//! The recipes of the repository load, with the lints that they deserve.

use super::{file, load_with, yaml_files};
use sft_run::recipe::diagnostic::render;
use sft_run::recipe::{Request, View, config_text, no_effect, resolve};
use std::collections::BTreeMap;

fn lints(name: &str) -> Vec<&'static str> {
    let loaded = load_with(&file("recipes").join(name), &[]);
    let (_, lints) = loaded.unwrap_or_else(|problems| panic!("{}", render(&problems, false)));
    lints.into_iter().map(|lint| lint.code).collect()
}

#[test]
fn every_shipped_recipe_loads() {
    let names = yaml_files("recipes");
    assert!(names.len() >= 6, "{names:?}");
    for name in names {
        lints(&name);
    }
}

#[test]
fn shipped_recipes_have_their_lints() {
    let check = |name: &str, expected: &[&str]| assert_eq!(lints(name), expected, "{name}");
    check(
        "megatron_1.3b.yaml",
        &["lint::ffn_hidden_size", "lint::sequence_parallel", "lint::constant_steps"],
    );
    check("megatron_2b.yaml", &["lint::short_sequences", "lint::constant_steps"]);
    check(
        "megatron_65b.yaml",
        &["lint::validation_off", "lint::selective_recompute", "lint::constant_steps"],
    );
    check("megatron_20b.yaml", &["lint::selective_recompute", "lint::constant_steps"]);
    check("megatron_llama2_7b.yaml", &["lint::selective_recompute", "lint::megatron_legacy"]);
    check("sft_megatron_20b.yaml", &["lint::selective_recompute"]);
}

#[test]
fn a_printed_recipe_is_the_same_recipe() {
    let shipped = yaml_files("recipes").into_iter().map(|name| file("recipes").join(name));
    let nemo = "tests/fixtures/recipes/nemo";
    let nemo_files = yaml_files(nemo).into_iter().map(|name| file(nemo).join(name));
    let environment = BTreeMap::new();
    for path in shipped.chain(nemo_files) {
        // NeMo's files leave some values to whoever uses them.
        let text = std::fs::read_to_string(&path).expect("a recipe").replace("???", "set");
        let folder = tempfile::tempdir().expect("a folder");
        let [first, again] = ["first.yaml", "again.yaml"].map(|name| folder.path().join(name));
        sft_run::base::atomic_file::write(&first, text.as_bytes()).expect("a file");
        let request = |path| Request {
            path,
            overrides: &[],
            variables: &[],
            environment: &environment,
            hparams: None,
            git: None,
            gpu: None,
        };
        // One that extends another stays where that one is.
        let source = if text.contains("extends:") { path.clone() } else { first };
        let values = resolve(&request(&source)).expect("it resolves").values;
        let view = View { resolve: true, ..View::default() };
        let printed = config_text(&request(&source), &view).expect("it resolves");
        sft_run::base::atomic_file::write(&again, printed.as_bytes()).expect("a file");
        let read = resolve(&request(&again)).expect("it reads back").values;
        assert_eq!(read, values, "{}", path.display());
    }
}

#[test]
fn stages_follow_from_the_data() {
    let kinds = |name: &str| -> Vec<String> {
        let (recipe, _) = load_with(&file("recipes").join(name), &[]).expect("loads");
        recipe.stages().iter().map(|stage| stage.name.clone()).collect()
    };
    assert_eq!(kinds("megatron_1.3b.yaml"), ["load", "train"]);
    assert_eq!(kinds("sft_megatron_20b.yaml"), ["load", "train"]);
}

#[test]
fn keys_without_effect_are_told() {
    let (recipe, _) = load_with(&file("recipes/megatron_1.3b.yaml"), &[]).expect("loads");
    let keys = no_effect(&recipe);
    assert!(keys.iter().all(|key| key.place.is_some() && !key.reason.is_empty()));
    let about = |path: &str| keys.iter().any(|key| key.path.to_string() == path);
    assert!(about("model.persist_layer_norm") || about("model.sync_batch_comm"));
    assert!(about("trainer.logger") && !about("model.optim.lr"));
}
