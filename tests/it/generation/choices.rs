//! Multiple choice against lm-evaluation-harness, on the checkpoint fixtures.

use super::sampling::greedy;
use serde::Deserialize;
use sft_run::base::atomic_file;
use sft_run::spec::backend::Backend;
use sft_run::spec::event::{Sample, Silent};
use sft_run::spec::generation::StopReason;
use sft_run::spec::job::{
    ChoiceSet, EvaluateJob, EvaluateStage, Job, ReadingTrainer, Split, TokenizerKind,
    TokenizerSettings,
};
use sft_run::spec::metric::{Metric, MetricName};
use sft_run::stages::{self, Folders, Outcome};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

/// What `make_choices.py` recorded of one model.
#[derive(Deserialize)]
struct Record {
    acc: f64,
    acc_norm: f64,
    acc_bytes: f64,
    log_likelihoods: Vec<Vec<f64>>,
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn set() -> ChoiceSet {
    ChoiceSet {
        prompt: "{{ question }}".to_owned(),
        choices: "endings".to_owned(),
        answer: "label".to_owned(),
        labels: None,
        delimiter: " ".to_owned(),
    }
}

fn evaluate(
    model: &str,
    rows: PathBuf,
    set: ChoiceSet,
    output: &Path,
) -> Result<Outcome, stages::Error> {
    let names = [MetricName::Acc, MetricName::AccNorm, MetricName::AccBytes];
    let stage = EvaluateStage {
        split: Split::Test,
        task: None,
        limit: None,
        metrics: names.map(Metric::Named).to_vec(),
        gen_kwargs: greedy(),
        choices: Some(set),
    };
    let model_settings = TokenizerSettings { tokenizer: Some(TokenizerKind::HuggingFace) };
    let job = EvaluateJob { trainer: ReadingTrainer::default(), model: model_settings, stage };
    let job = Job::Evaluate(job);
    let inputs = [
        ("model", fixtures().join("checkpoints").join(model)),
        ("choices", rows),
        ("tokenizer.model", fixtures().join("generation/choices/tokenizer.json")),
    ];
    let inputs = inputs.map(|(name, path)| (name.to_owned(), path)).into();
    let folders = Folders { inputs, backend: Backend::Cpu, output: output.to_owned() };
    stages::run(&job, &folders, &Silent, &AtomicBool::new(false))
}

#[test]
fn accuracies_and_likelihoods_are_those_of_the_harness() {
    let text = fs::read_to_string(fixtures().join("generation/choices/recorded.json")).unwrap();
    let records: BTreeMap<String, Record> = serde_json::from_str(&text).unwrap();
    assert_eq!(records.len(), 3);
    for (model, record) in records {
        let output = tempfile::tempdir().unwrap();
        let rows = fixtures().join("generation/choices/rows.jsonl");
        let facts = evaluate(&model, rows, set(), output.path()).expect("evaluates").facts;
        let ours = ["acc", "acc_norm", "acc_bytes"].map(|name| facts[name]);
        assert_eq!(ours, [record.acc, record.acc_norm, record.acc_bytes], "{model}");
        let lines = fs::read_to_string(output.path().join("samples.jsonl")).unwrap();
        let samples: Vec<Sample> =
            lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(samples.len(), record.log_likelihoods.len());
        for (sample, theirs) in samples.iter().zip(&record.log_likelihoods) {
            let far = sample.logprob.iter().zip(theirs).map(|(ours, theirs)| (ours - theirs).abs());
            let far = far.fold(0.0, f64::max);
            assert!(far < 1e-3 && sample.logprob.len() == 4, "{model}: {far} in {sample:?}");
            assert_eq!(sample.stop_reason, StopReason::Chosen);
        }
    }
}

fn check_refused(row: &str, set: ChoiceSet, expected: &str) {
    let folder = tempfile::tempdir().unwrap();
    let rows = folder.path().join("rows.jsonl");
    atomic_file::write(&rows, row.as_bytes()).unwrap();
    let error = evaluate("gpt2", rows, set, &folder.path().join("output")).unwrap_err();
    let mut told = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(error) = source {
        told += &format!(": {error}");
        source = error.source();
    }
    assert!(told.contains(expected), "{told}");
}

#[test]
fn rows_that_hold_no_question_are_refused_by_line() {
    let row =
        |label: &str| format!(r#"{{"question": "a", "endings": ["b", "c"], "label": {label}}}"#);
    check_refused(&row("2"), set(), "rows.jsonl:1: `answer` is 2, which is none of the 2 choices");
    check_refused(&row("\"D\""), set(), "`answer` is \"D\"");
    let labels = ChoiceSet { labels: Some("['1']".to_owned()), ..set() };
    check_refused(&row("1"), labels, "not as many `labels` as `choices`");
    let text = ChoiceSet { choices: "question".to_owned(), ..set() };
    check_refused(&row("1"), text, "`choices` is \"a\", which is no list");
    let missing = ChoiceSet { choices: "options".to_owned(), ..set() };
    check_refused(&row("1"), missing, "it has no field `options`");
    let broken = ChoiceSet { answer: "label |".to_owned(), ..set() };
    check_refused(&row("1"), broken, "answer `label |` is not an expression");
    check_refused("\n", set(), "has no rows of multiple choice");
}
