//! Text classifiers against transformers: ids, logits and probabilities of recorded texts.

use serde::Deserialize;
use sft_run::data::tokenizer::FramedTokenizer;
use sft_run::engine::classifier::Classifier;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// What `make_classifiers.py` recorded of one text.
#[derive(Deserialize)]
struct Record {
    text: String,
    ids: Vec<u32>,
    logits: Vec<f32>,
    score: f64,
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/classifiers").join(name)
}

#[test]
fn logits_are_those_of_transformers() {
    let text = fs::read_to_string(fixture("recorded.json")).unwrap();
    let recorded: BTreeMap<String, Vec<Record>> = serde_json::from_str(&text).unwrap();
    assert_eq!(recorded.len(), 3);
    for (name, records) in recorded {
        let classifier = Classifier::open(&fixture(&name), None).unwrap();
        let tokenizer = FramedTokenizer::open(&fixture(&name), 40).unwrap();
        for record in records {
            assert_eq!(
                tokenizer.encode(&record.text).unwrap(),
                record.ids,
                "{name}: {}",
                record.text
            );
            let ours = classifier.logits(&record.text).unwrap();
            let far = ours.iter().zip(&record.logits).map(|(ours, theirs)| (ours - theirs).abs());
            let far = far.fold(0.0, f32::max);
            assert!(far < 1e-4 && ours.len() == record.logits.len(), "{name}: {far}");
            let score = classifier.score(&record.text).unwrap();
            assert!((score - record.score).abs() < 1e-4, "{name}: {score}");
        }
    }
}

#[test]
fn labels_are_named_and_what_is_no_classifier_is_refused() {
    let text = "a gorgeous movie";
    let score =
        |label| Classifier::open(&fixture("distilbert"), label).unwrap().score(text).unwrap();
    assert!((score(Some("negative")) + score(Some("POSITIVE")) - 1.0).abs() < 1e-6);
    assert_eq!(score(None).to_bits(), score(Some("POSITIVE")).to_bits());
    let refused = |path: &Path, label| Classifier::open(path, label).unwrap_err().to_string();
    let error = refused(&fixture("distilbert"), Some("joy"));
    assert!(error.contains("no label `joy`: its labels are NEGATIVE, POSITIVE"), "{error}");
    let gpt2 = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/checkpoints/gpt2");
    let error = refused(&gpt2, None);
    assert!(error.contains("classifiers may be distilbert, bert and roberta"), "{error}");
    assert!(refused(&fixture("none"), None).contains("config.json"));
}
