//! Recipes with all the keys of NeMo's five configs load, or fail on few keys that are refused by name.

use super::{file, load_with};
use sft_run::recipe::diagnostic::render;
use sft_run::recipe::keys;
use sft_run::recipe::problem::Problem;

const FILES: &str = "model.data.train_ds.file_names=[a.jsonl]";
const HELD_OUT: &str = "model.data.validation_ds.file_names=[b.jsonl]";
const TEST: &str = "model.data.test_ds.file_names=[c.jsonl]";
/// The recipe ranks checkpoints by a metric of generated text, which is not computed in training.
const MONITOR: &str = "exp_manager.checkpoint_callback_params.monitor=val_loss";
const NEMO: &str = "model.restore_from_path=base.nemo";

fn problems(name: &str, overrides: &[&str]) -> Vec<Problem> {
    let path = file("tests/fixtures/recipes/nemo").join(name).with_extension("yaml");
    load_with(&path, overrides).err().unwrap_or_default()
}

/// The recipe is refused for exactly these paths, each with a reason.
fn check(name: &str, overrides: &[&str], refused: &[&str]) {
    let found = problems(name, overrides);
    let paths: Vec<String> =
        found.iter().filter_map(|problem| Some(problem.path.as_ref()?.to_string())).collect();
    assert_eq!(paths, refused, "{name}\n{}", render(&found, false));
    assert!(
        found.iter().all(|problem| problem.code == "recipe::refused" && problem.help.is_some())
    );
}

#[test]
fn nemo_configs_fail_on_refused_keys_only() {
    check(
        "megatron_gpt_config",
        &["model.data.data_prefix=[1.0,shards/text_document]"],
        &["model.transformer_engine"],
    );
    check("megatron_gpt_sft", &[NEMO, FILES, HELD_OUT, MONITOR], &[]);
    check("megatron_gpt_finetuning_config", &[NEMO, FILES, HELD_OUT], &["model.peft.peft_scheme"]);
    check("megatron_gpt_peft_tuning_config", &[NEMO, FILES, HELD_OUT], &["model.peft.peft_scheme"]);
    check("megatron_gpt_inference", &[], &[]);
}

#[test]
fn nemo_configs_load_without_the_refused_keys() {
    let settled = [NEMO, FILES, HELD_OUT, TEST, "model.peft.peft_scheme=null"];
    let path = file("tests/fixtures/recipes/nemo/megatron_gpt_finetuning_config.yaml");
    let loaded = load_with(&path, &settled);
    let (recipe, _) = loaded.unwrap_or_else(|problems| panic!("{}", render(&problems, false)));
    let names: Vec<_> = recipe.stages().iter().map(|stage| stage.name.as_str()).collect();
    assert_eq!(names, ["tokenize", "shard", "load", "train", "evaluate"]);
}

#[test]
fn values_to_set_are_told_all_at_once() {
    let found = problems("megatron_gpt_sft", &[]);
    let [problem] = found.as_slice() else { panic!("{}", render(&found, false)) };
    assert_eq!(problem.code, "recipe::missing_value");
    // The checkpoint and the files to learn from; the merge key hands those on to validation.
    let told = ["model.restore_from_path", "model.data.train_ds.file_names"];
    assert!(told.iter().all(|path| problem.message.contains(path)), "{}", problem.message);
}

#[test]
fn few_keys_are_refused_outright() {
    let keys = keys::all();
    let refused = keys.iter().filter(|key| key.status == keys::Status::Refused).count();
    assert!(refused * 100 < keys.len() * 15, "{refused} of {} keys are refused", keys.len());
}
