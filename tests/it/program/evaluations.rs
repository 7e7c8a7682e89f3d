//! Judged sets and classifiers from outside: evaluated in a run, refused before one.

use super::{Desk, text, word};
use serde_json::{Value, json};
use sft_run::base::atomic_file;
use sft_run::engine::classifier::Classifier;
use std::fs;
use std::path::Path;

/// The tiny recipe with one more stage, `judged`, of multiple choice.
fn desk(choices: &str) -> Desk {
    let desk = Desk::new();
    let rows: String = [("oak", 0), ("fox", 1), ("elm", 0), ("hen", 1)]
        .map(|(term, label)| {
            let endings = ["plant", "animal"];
            let row = json!({"question": term, "endings": endings, "label": label});
            format!("{row}\n")
        })
        .concat();
    atomic_file::write(&desk.path("questions.jsonl"), rows.as_bytes()).unwrap();
    let stage = format!(
        "  judged:\n    evaluate:\n      model: train\n      choices: {choices}\n      metrics: [acc, acc_norm]\n"
    );
    let recipe = format!("{}{stage}", desk.text("tiny.yaml"));
    atomic_file::write(&desk.path("tiny.yaml"), recipe.as_bytes()).unwrap();
    desk
}

fn near(one: f64, other: &Value) {
    assert!((one - other.as_f64().unwrap()).abs() < 1e-6, "{one} and {other}");
}

#[test]
fn a_recipe_judges_by_multiple_choice_and_by_a_classifier() {
    let desk = desk(
        r#"{rows: questions.jsonl, prompt: "{{ question }} kind:", choices: endings, answer: label}"#,
    );
    let fixture =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/classifiers/distilbert");
    let folder = desk.path("mood");
    fs::create_dir(&folder).unwrap();
    for entry in fs::read_dir(&fixture).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), folder.join(entry.file_name())).unwrap();
    }
    let metrics = "stages.evaluate.evaluate.metrics=\
         [exact_match, {name: mood, classifier: mood, label: POSITIVE}]";
    desk.run(&["tiny.yaml", metrics, "+stages.evaluate.evaluate.limit=4"], 0);
    let summary = desk.json("runs/tiny/summary.json");
    let values = |name: &str| {
        let stages = summary["stages"].as_array().unwrap();
        stages.iter().find(|stage| stage["name"] == name).unwrap()["metrics"].clone()
    };
    let samples: Vec<Value> = desk
        .text("runs/tiny/samples.jsonl")
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let (judged, others): (Vec<_>, Vec<_>) =
        samples.iter().partition(|sample| sample["stop_reason"] == "chosen");
    assert_eq!(judged.len(), 4);
    let right = judged.iter().filter(|sample| sample["output"] == sample["expected"]).count();
    near(right as f64 / 4.0, &values("judged")["acc"]);
    // Each answer's score is the classifier's, and the metric their mean.
    let classifier = Classifier::open(&fixture, Some("POSITIVE")).unwrap();
    let scored: Vec<_> =
        others.iter().filter(|sample| !sample["scores"]["mood"].is_null()).collect();
    assert_eq!(scored.len(), 4);
    let mut sum = 0.0;
    for sample in scored {
        let score = classifier.score(&word(&sample["output"])).unwrap();
        near(score, &sample["scores"]["mood"]);
        sum += score;
    }
    near(sum / 4.0, &values("evaluate")["mood"]);
}

/// Refused with exit code 2 and these words, and nothing done; `plan` says it too.
fn refused(desk: &Desk, overrides: &[&str], words: &[&str]) {
    let output = desk.output(&[&["tiny.yaml"], overrides].concat());
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{told}");
    for word in words {
        assert!(told.contains(word), "no {word} in\n{told}");
    }
    assert!(!desk.path("runs").exists(), "something was done");
    let plan = desk.run(&[&["plan", "tiny.yaml"], overrides].concat(), 4);
    assert!(plan.contains(words[0]), "{plan}");
}

#[test]
fn rows_that_do_not_fit_are_refused_before_any_work() {
    refused(
        &desk(
            r#"{rows: questions.jsonl, prompt: "{{ question }}", choices: options, answer: label}"#,
        ),
        &[],
        &["stages.judged.evaluate.choices", "questions.jsonl:1: ", "`options`", "and 3 more"],
    );
    refused(
        &desk(
            r#"{rows: elsewhere.jsonl, prompt: "{{ question }}", choices: endings, answer: label}"#,
        ),
        &[],
        &["stages.judged.evaluate.choices.rows", "elsewhere.jsonl", "put it there"],
    );
}

#[test]
fn prompts_and_files_of_metrics_are_looked_into_before_any_work() {
    let desk = Desk::new();
    let put = |name: &str, text: &str| {
        atomic_file::write(&desk.path(name), text.as_bytes()).unwrap();
    };
    put("prompts.jsonl", "{\"prompt\": \"oak\"}\n{\"text\": \"fox\"}\n");
    put("words.txt", "good 1.9\n");
    fs::create_dir(desk.path("mood")).unwrap();
    put("mood/config.json", r#"{"model_type": "gpt2"}"#);
    refused(
        &desk,
        &[
            "~stages.generate.generate.prompts",
            "+stages.generate.generate.prompts_file=prompts.jsonl",
        ],
        &["stages.generate.generate.prompts_file", "line 2 holds no prompt"],
    );
    refused(
        &desk,
        &["stages.evaluate.evaluate.metrics=[{name: mood, lexicon: words.txt}]"],
        &["stages.evaluate.evaluate.metrics.0.lexicon", "line 1 is no entry of a lexicon"],
    );
    let validate = "+stages.train.train.validate=\
         {data: tokenize, metrics: [{name: mood, classifier: mood}]}";
    refused(
        &desk,
        &[validate],
        &["stages.train.train.validate.metrics.0.classifier", "classifiers may be distilbert"],
    );
}
