//! Metrics of texts against values recorded from reference implementations.

use serde::Deserialize;
use sft_run::metrics::collector::score_text;
use sft_run::spec::metric::MetricName;
use std::collections::BTreeMap;

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
