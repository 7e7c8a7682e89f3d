//! Every key that the schema allows has a status, and the committed listing is the table.

use super::schema::same;
use super::{file, load_with};
use sft_run::recipe::diagnostic::render;
use sft_run::recipe::{keys, no_effect};
use std::collections::BTreeSet;

#[test]
fn every_key_of_the_schema_has_one_status() {
    let mut table = BTreeSet::new();
    for key in keys::all() {
        assert!(table.insert(key.path.clone()), "{} stands twice in the table", key.path);
    }
    let schema = keys::in_schema();
    let without: Vec<_> = schema.difference(&table).collect();
    let unknown: Vec<_> = table.difference(&schema).collect();
    assert!(without.is_empty(), "keys without a status: {without:#?}");
    assert!(unknown.is_empty(), "no key of the schema: {unknown:#?}");
}

#[test]
fn every_refused_key_has_a_reason() {
    for key in keys::all() {
        let refused = key.status == keys::Status::Refused;
        assert!(!refused || key.refused.is_some(), "{} is refused without a reason", key.path);
    }
    for path in keys::refusals() {
        assert!(keys::all().iter().any(|key| key.path == path), "{path} is no key of the table");
    }
}

#[test]
fn the_listing_is_current() {
    same("schemas/keys.md", &keys::listing());
}

#[test]
fn what_is_hydras_own_is_reported_and_files_by_its_search_are_refused() {
    let text = std::fs::read_to_string(file("tests/fixtures/plan/small.yaml")).expect("a recipe");
    let folder = tempfile::tempdir().expect("a folder");
    let load = |defaults: &str| {
        let path = folder.path().join("recipe.yaml");
        let text =
            format!("defaults: {defaults}\nhydra: {{run: {{dir: 'x/${{now:%Y}}'}}}}\n{text}");
        sft_run::base::atomic_file::write(&path, text.as_bytes()).expect("a file");
        load_with(&path, &[])
    };
    let (recipe, _) =
        load("[_self_, {optional overlap@model.x: null}, {override hydra/launcher: basic}]")
            .unwrap_or_else(|problems| panic!("{}", render(&problems, false)));
    let idle = no_effect(&recipe);
    let idle: Vec<_> = idle.iter().map(|key| (key.path.to_string(), key.reason)).collect();
    let reason = "it sets up Hydra, which is not used";
    let told = |path: &str| idle.contains(&(path.to_owned(), reason));
    assert!(told("defaults") && told("hydra"), "{idle:?}");

    let problems = load("[base, {optim: adam}, _self_]").expect_err("files are named");
    let [problem] = problems.as_slice() else { panic!("{}", render(&problems, false)) };
    assert_eq!(problem.message, "`defaults` names files: base, optim: adam");
    assert!(problem.help.as_deref().is_some_and(|help| help.contains("extends: [base.yaml]")));
}

#[test]
fn a_number_with_a_point_is_told_to_be_whole() {
    let small = file("tests/fixtures/plan/small.yaml");
    let problems = load_with(&small, &["trainer.max_steps=1e2"]).expect_err("no whole number");
    let [problem] = problems.as_slice() else { panic!("{}", render(&problems, false)) };
    assert_eq!(problem.message, "`trainer.max_steps`: it must be a whole number, not 100.0");
    assert_eq!(problem.help.as_deref(), Some("write 100"));
}
