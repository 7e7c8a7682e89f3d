//! Metrics of texts against values recorded from reference implementations.

use serde::Deserialize;
use sft_run::metrics::scorer::{Surroundings, score_text};
use sft_run::metrics::{Scorer, Texts};
use sft_run::spec::metric::{Metric, MetricName};
use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

#[derive(Deserialize)]
struct Recorded {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    expected: String,
    output: String,
    scores: BTreeMap<MetricName, f64>,
}

#[test]
fn scores_equal_the_recorded_ones() {
    let text = include_str!("../../fixtures/generation/text_metrics.json");
    let recorded: Recorded = serde_json::from_str(text).expect("the fixture is valid");
    let mut compared = 0;
    for case in recorded.cases {
        for (metric, wanted) in case.scores {
            let value = score_text(metric, &case.expected, &case.output).expect("a text metric");
            let place = format!("{metric:?} of {:?} and {:?}", case.expected, case.output);
            assert!((value - wanted).abs() < 1e-12, "{place}: {value}, recorded {wanted}");
            compared += 1;
        }
    }
    assert!(compared > 300, "only {compared} scores compared");
}

#[test]
fn names_are_spelled_as_in_a_recipe() {
    for name in ["loss", "token_accuracy", "exact_match", "rouge_1", "rouge_l"] {
        let metric: MetricName = serde_json::from_value(name.into()).expect("a metric's name");
        assert_eq!(metric.name(), name);
    }
}

#[derive(Deserialize)]
struct Corpora {
    corpora: Vec<Corpus>,
}

#[derive(Deserialize)]
struct Corpus {
    name: String,
    rows: Vec<Pair>,
    scores: BTreeMap<MetricName, f64>,
}

#[derive(Deserialize)]
struct Pair {
    expected: String,
    output: String,
    bleu: f64,
    chrf: f64,
}

#[test]
fn corpora_score_as_sacrebleu_rouge_score_and_scikit_learn_say() {
    let text = include_str!("../../fixtures/generation/corpus_metrics.json");
    let recorded: Corpora = serde_json::from_str(text).expect("the fixture is valid");
    let stop = AtomicBool::new(false);
    for corpus in recorded.corpora {
        let metrics: Vec<Metric> = corpus.scores.keys().copied().map(Metric::Named).collect();
        let text = |pair: &'_ Pair| (pair.expected.clone(), pair.output.clone());
        let texts: Vec<_> = corpus.rows.iter().map(text).collect();
        let row =
            |(expected, output): &'static (String, String)| Texts { prompt: "", expected, output };
        let rows: Vec<Texts<'_>> = Vec::leak(texts).iter().map(row).collect();
        let scorer = Scorer::new(&metrics, &|_| None).expect("nothing to prepare");
        let mut around = Surroundings {
            stop: &stop,
            hear: &mut |_, _| (),
            classify: &mut |_, _| Ok(0.0),
            seed: 1,
        };
        let results = scorer.score(&rows, &[], &mut around);
        assert!(results.failures.is_empty(), "{:?}", results.failures);
        for (metric, wanted) in &corpus.scores {
            let value = results.values[metric.name()];
            let place = format!("{} of {}", metric.name(), corpus.name);
            assert!((value - wanted).abs() < 1e-6, "{place}: {value}, recorded {wanted}");
            let [low, high] = results.intervals[metric.name()];
            assert!(low <= high && low.is_finite() && high.is_finite(), "{place}: {low} {high}");
        }
        for (pair, scores) in corpus.rows.iter().zip(&results.rows) {
            let place = format!("{:?} and {:?}", pair.expected, pair.output);
            assert!((scores["bleu"] - pair.bleu).abs() < 1e-6, "bleu of {place}: {scores:?}");
            assert!((scores["chrf"] - pair.chrf).abs() < 1e-6, "chrf of {place}: {scores:?}");
        }
    }
}

/// Scores two outputs, `good film` and `{"a": 1}`, by one metric of a recipe's own.
#[expect(clippy::needless_pass_by_value, reason = "as it is called")]
fn own(metric: Metric, file: Option<std::path::PathBuf>) -> Vec<f64> {
    let rows = ["It was a good, GREAT film :)", "{\"a\": 1}"].map(|output| Texts {
        prompt: "p",
        expected: "good",
        output,
    });
    let name = metric.name().to_owned();
    let scorer = Scorer::new(&[metric], &|_| file.clone()).expect("it is well formed");
    let stop = AtomicBool::new(false);
    let mut around =
        Surroundings { stop: &stop, hear: &mut |_, _| (), classify: &mut |_, _| Ok(0.0), seed: 1 };
    let results = scorer.score(&rows, &[], &mut around);
    assert!(results.failures.is_empty(), "{:?}", results.failures);
    results.rows.iter().map(|row| row[&name]).collect()
}

#[test]
fn a_recipe_makes_metrics_of_its_own() {
    let name = || "mine".to_owned();
    let digits = Metric::Regex { name: name(), regex: "[0-9]".to_owned() };
    assert_eq!(own(digits, None), [0.0, 1.0]);
    let inside = Metric::Expression { name: name(), expression: "expected in output".to_owned() };
    assert_eq!(own(inside, None), [1.0, 0.0]);
    let longer =
        Metric::Expression { name: name(), expression: "output|length - prompt|length".to_owned() };
    assert_eq!(own(longer, None), [27.0, 7.0]);
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    sft_run::base::atomic_file::write(file.path(), b"good\t1.5\t0.3\ngreat\t2\n:)\t0.5\n")
        .expect("writable");
    let scores = own(Metric::Lexicon { name: name() }, Some(file.path().to_owned()));
    assert_eq!(scores, [4.0 / 31f64.sqrt(), 0.0]);
    assert_eq!(own(Metric::Named(MetricName::JsonValid), None), [0.0, 1.0]);
}
