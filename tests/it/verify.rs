//! `sft-run verify` from outside: the same again, and each culprit named.

use crate::program::{Desk, text};
use serde_json::Value;
use std::fs;
use std::os::unix::process::CommandExt;

/// A desk on which the tiny recipe has run.
fn ran() -> Desk {
    let desk = Desk::new();
    desk.run(&["tiny.yaml", "-q"], 0);
    desk
}

fn edit(desk: &Desk, name: &str, from: &str, to: &str) {
    let old = desk.text(name);
    assert!(old.contains(from), "{name} has no `{from}`");
    fs::write(desk.path(name), old.replacen(from, to, 1)).unwrap();
}

/// The JSON verdict of a verification that ends with `code`.
fn verdict(desk: &Desk, words: &[&str], code: i32) -> Value {
    let words = [&["verify", "tiny.yaml", "--json"], words].concat();
    serde_json::from_str(&desk.run(&words, code)).unwrap()
}

/// The first stage that differs, and its findings as text.
fn culprit(verdict: &Value) -> (String, String) {
    let stages = verdict["stages"].as_array().unwrap();
    let first = stages.iter().find(|stage| stage["check"] == "different").unwrap();
    (first["stage"].as_str().unwrap().to_owned(), first["findings"].to_string())
}

#[test]
fn the_same_again_is_the_same() {
    let desk = ran();
    let lock = desk.text("tiny.lock");
    let shown = desk.run(&["verify", "tiny.yaml", "--junit", "verdict.xml"], 0);
    assert!(shown.contains("12 steps and all bytes"), "{shown}");
    let xml = desk.text("verdict.xml");
    assert!(xml.contains("tests=\"6\" failures=\"0\" skipped=\"0\""), "{xml}");
    assert_eq!(desk.text("tiny.lock"), lock);
    assert_eq!(fs::read_dir(desk.path(".sft-run/cache/verify")).unwrap().count(), 0);
}

#[test]
fn a_changed_letter_in_an_input_is_named() {
    let desk = ran();
    edit(&desk, "nouns.jsonl", "a", "b");
    let (stage, findings) = culprit(&verdict(&desk, &[], 3));
    assert_eq!(stage, "tokenize");
    assert!(findings.contains("file nouns.jsonl") && findings.contains("\"output\""), "{findings}");
}

#[test]
fn a_flipped_bit_in_the_starting_checkpoint_is_named() {
    let desk = ran();
    fs::rename(desk.path("runs/tiny/checkpoints/train/checkpoint"), desk.path("start")).unwrap();
    edit(&desk, "tiny.yaml", "load: {load: {}}", "load: {load: {restore_from_path: start}}");
    desk.run(&["tiny.yaml", "-q"], 0);
    verdict(&desk, &["--steps", "2", "--stages", "train"], 0);
    let path = largest(&desk, "start");
    let mut bytes = fs::read(&path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    // The file may be a hard link to one in the cache: that one stays as it is.
    fs::remove_file(&path).unwrap();
    fs::write(&path, bytes).unwrap();
    let (stage, findings) = culprit(&verdict(&desk, &[], 3));
    assert_eq!(stage, "load");
    assert!(findings.contains("file start"), "{findings}");
}

fn largest(desk: &Desk, folder: &str) -> std::path::PathBuf {
    let files = fs::read_dir(desk.path(folder)).unwrap().map(|entry| entry.unwrap().path());
    files.max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap()
}

#[test]
fn a_changed_seed_is_named_with_its_line() {
    let desk = ran();
    edit(&desk, "tiny.yaml", "seed: 7", "seed: 8");
    let (stage, findings) = culprit(&verdict(&desk, &[], 3));
    assert!(stage == "shard" || stage == "load", "{stage}");
    assert!(findings.contains("model.seed") && findings.contains("tiny.yaml:"), "{findings}");
}

#[test]
fn a_changed_template_is_named() {
    let desk = ran();
    edit(&desk, "tiny.yaml", "{{ gloss }} kind:", "{{ gloss }} sort:");
    let (stage, findings) = culprit(&verdict(&desk, &[], 3));
    assert_eq!(stage, "tokenize");
    assert!(findings.contains("prompt") && findings.contains("tiny.yaml:"), "{findings}");
}

#[test]
fn the_first_step_that_differs_is_named_with_its_distance() {
    let desk = ran();
    let mut lock: Value = serde_json::from_str(&desk.text("tiny.lock")).unwrap();
    let line = &mut lock["stages"]["train"]["trace"]["00000001"];
    let bits = line.as_str().unwrap().to_owned();
    // The last digit of the third step's loss.
    let at = 2 * 32 + 15;
    let digit = u8::from_str_radix(&bits[at..=at], 16).unwrap();
    *line = format!("{}{:x}{}", &bits[..at], digit ^ 1, &bits[at + 1..]).into();
    fs::write(desk.path("tiny.lock"), lock.to_string()).unwrap();
    let verdict = verdict(&desk, &["--steps", "5"], 3);
    let (stage, findings) = culprit(&verdict);
    assert_eq!(stage, "train");
    assert!(findings.contains("not_reproducible"), "{findings}");
    assert!(findings.contains("\"step\":3") && findings.contains("\"ulps\":1"), "{findings}");
    let last = verdict["stages"].as_array().unwrap().last().unwrap();
    assert_eq!(last["check"], "not_checked");
}

#[test]
fn a_short_check_ends_after_its_steps() {
    let desk = ran();
    let shown = desk.run(&["verify", "tiny.yaml", "--steps", "4"], 0);
    assert!(shown.contains("4 steps to the bit") && shown.contains("not finished"), "{shown}");
}

#[test]
fn an_accepted_difference_is_the_new_lock() {
    let desk = ran();
    edit(&desk, "tiny.yaml", "lr: 1e-3", "lr: 2e-3");
    let words = ["verify", "tiny.yaml", "model.seed=8"];
    let shown = desk.run(&words, 3);
    assert!(!shown.contains("verified"), "{shown}");
    assert!(shown.contains("sft-run verify tiny.yaml model.seed=8 --update"), "{shown}");
    let shown = desk.run(&["verify", "tiny.yaml", "--update"], 0);
    assert!(shown.contains("model.optim.lr") && shown.contains("the lock now says"), "{shown}");
    desk.run(&["verify", "tiny.yaml", "--steps", "2"], 0);
}

#[test]
fn elsewhere_numbers_are_held_to_tolerances() {
    let desk = ran();
    edit(&desk, "tiny.lock", "\"instructions\": \"", "\"instructions\": \"other ");
    let verdict_elsewhere = verdict(&desk, &[], 0);
    assert_eq!(verdict_elsewhere["exact"], false);
    edit(
        &desk,
        "tiny.yaml",
        "stages:",
        "verify: {tolerances: {loss: 0.0, grad_norm: 1e-9}}\nstages:",
    );
    verdict(&desk, &["--steps", "3"], 0);
    edit(&desk, "tiny.yaml", "grad_norm: 1e-9", "grad_norm: -1");
    let wrong = text(&desk.output(&["verify", "tiny.yaml"]).stderr);
    assert!(wrong.contains("grad_norm") && wrong.contains("0 or more"), "{wrong}");
}

#[test]
fn another_layout_is_another_environment() {
    let desk = ran();
    let layout = ["trainer.devices=2", "model.tensor_model_parallel_size=2"];
    let same = verdict(&desk, &layout, 0);
    assert_eq!(same["exact"], false);
    let differs = same["differs_in_environment"].to_string();
    assert!(differs.contains("model.tensor_model_parallel_size"), "{differs}");
    // Its weights have other bits, so the stages after it read others: that is no difference.
    let checks = same["stages"].as_array().unwrap();
    assert!(checks.iter().all(|stage| stage["check"] != "different"), "{same}");
    let words = [&layout[..], &["model.optim.lr=2e-3"]].concat();
    assert_eq!(culprit(&verdict(&desk, &words, 3)).0, "train");
}

#[test]
fn without_a_lock_there_is_nothing_to_hold_to() {
    let desk = Desk::new();
    let output = desk.output(&["verify", "tiny.yaml"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("there is no lock"));
    let desk = ran();
    let output = desk.output(&["verify", "tiny.yaml", "--stages", "tain"]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn surroundings_change_no_bit() {
    let lock = |desk: &Desk| {
        let mut lock: Value = serde_json::from_str(&desk.text("tiny.lock")).unwrap();
        lock.as_object_mut().unwrap().remove("environment");
        lock
    };
    let reference = lock(&ran());
    for (threads, locale, umask) in [("1", "C", 0o077), ("3", "tr_TR.UTF-8", 0o002)] {
        let desk = Desk::new();
        let mut command = desk.command(&["tiny.yaml", "-q"]);
        command.env("RAYON_NUM_THREADS", threads).env("LC_ALL", locale).env("TZ", "Asia/Tokyo");
        // Another working folder: the recipe's paths are relative to the recipe.
        let folder = tempfile::tempdir().unwrap();
        let recipe = desk.path("tiny.yaml");
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", &format!("umask {umask:03o}; exec \"$@\""), "sh"]);
        shell.arg(command.get_program()).arg(recipe).arg("-q").current_dir(folder.path());
        shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        shell.env_remove("SFT_RUN_CACHE").arg0("sh");
        let output = shell.output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert_eq!(lock(&desk), reference, "RAYON_NUM_THREADS={threads} LC_ALL={locale}");
    }
}
