//! What a plan says before it runs.

use super::fixture::*;
use serde_json::json;
use std::fs;

/// The text, with what depends on the day's hashes left out.
fn text(shop: &Workshop, stages: Vec<sft_run::plan::Stage>) -> String {
    hashes_hidden(&shop.preview(&seal(stages)).to_string())
}

#[test]
fn of_a_first_run() {
    let shop = Workshop::new();
    insta::assert_snapshot!(text(&shop, stages(&shop.rows)));
}

#[test]
fn of_a_finished_run() {
    let shop = Workshop::new();
    shop.run(&seal(stages(&shop.rows)));
    insta::assert_snapshot!(text(&shop, stages(&shop.rows)));
}

#[test]
fn of_changed_settings_with_the_place_of_the_new_value() {
    let shop = Workshop::new();
    shop.run(&seal(stages(&shop.rows)));
    let mut changed = stages(&shop.rows);
    changed[3].job = job(
        "train",
        &[
            ("/train/model/optim/lr", json!(1e-4)),
            ("/train/trainer/max_steps", json!(500)),
            ("/train/model/optim/betas", json!([0.9, 0.99])),
        ],
    );
    let origins = [("model.optim.lr", "override 1"), ("trainer.max_steps", "recipes/small.yaml:7")];
    changed[3].origins =
        origins.iter().map(|(path, place)| ((*path).to_owned(), (*place).to_owned())).collect();
    insta::assert_snapshot!(text(&shop, changed));
}

#[test]
fn of_another_layout_by_the_recipes_keys() {
    let shop = Workshop::new();
    let mut before = stages(&shop.rows);
    let single =
        json!({"data": 1, "pipeline": 1, "virtual_pipeline": 1, "tensor": 1, "sequence": false});
    before[3].job = job("train", &[("/train/trainer/degrees", single)]);
    shop.run(&seal(before.clone()));
    let mut changed = before;
    let degrees =
        json!({"data": 2, "pipeline": 1, "virtual_pipeline": 1, "tensor": 4, "sequence": false});
    changed[3].job = job("train", &[("/train/trainer/degrees", degrees)]);
    changed[3].origins = [("trainer.degrees.data".to_owned(), "override 1".to_owned())].into();
    let told = text(&shop, changed);
    assert!(told.contains("trainer.devices × num_nodes  1 → 8  (override 1)\n"), "{told}");
    assert!(told.contains("model.tensor_model_parallel_size  1 → 4\n"), "{told}");
    assert!(!told.contains("pipeline") && !told.contains("degrees"), "{told}");
}

#[test]
fn of_changed_inputs_stages_and_devices() {
    let shop = Workshop::new();
    shop.run(&seal(stages(&shop.rows)));
    overwrite(&shop.rows, "other rows\n");
    let mut changed = stages(&shop.rows);
    changed[2].job = job("load", &[("/load/model/seed", json!(7))]);
    changed[4].backend = Some(sft_run::plan::Backend::Cuda);
    changed.push(stage("before", "evaluate", &[("data", "tokenize"), ("model", "load")]));
    insta::assert_snapshot!(text(&shop, changed));
}

#[test]
fn of_an_emptied_cache() {
    let shop = Workshop::new();
    shop.run(&seal(stages(&shop.rows)));
    fs::remove_dir_all(shop.folder.path().join("cache/train")).unwrap();
    insta::assert_snapshot!(text(&shop, stages(&shop.rows)));
}

#[test]
fn for_programs() {
    let shop = Workshop::new();
    shop.run(&seal(stages(&shop.rows)));
    let mut changed = stages(&shop.rows);
    changed[3].job = job("train", &[("/train/model/optim/lr", json!(1e-4))]);
    let preview = shop.preview(&seal(changed));
    let train = serde_json::to_value(&preview.stages[3]).unwrap();
    assert_eq!(train["decision"], "run");
    assert_eq!(train["reasons"][0]["reason"], "setting");
    assert_eq!(train["reasons"][0]["path"], "model.optim.lr");
    assert_eq!(train["reasons"][0]["old"], 6e-5);
    assert_eq!(train["reasons"][0]["new"], 1e-4);
    assert_eq!(serde_json::to_value(&preview.stages[0]).unwrap()["decision"], "up_to_date");
}
