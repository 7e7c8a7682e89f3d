//! Evaluation and generation over several ranks, from outside.

use super::{Desk, VALIDATE};
use serde_json::Value;

/// Lines of `metrics.jsonl` as JSON.
fn lines(desk: &Desk) -> Vec<Value> {
    let lines = desk.numbers("runs/tiny/metrics.jsonl");
    lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn close(one: &Value, other: &Value, what: &str) {
    for (key, one) in one.as_object().unwrap() {
        let (one, other) = (one.as_f64().unwrap(), other[key].as_f64().unwrap());
        assert!((one - other).abs() <= 1e-4 * one.abs(), "{what}, {key}: {one} and {other}");
    }
}

#[test]
fn answers_between_steps_and_after_them_are_those_of_one_device() {
    let desk = Desk::new();
    desk.run(&["tiny.yaml", VALIDATE], 0);
    let (one, evaluated) = (lines(&desk), evaluation(&desk));
    let layouts = [
        ["model.tensor_model_parallel_size=2", "+model.sequence_parallel=true"],
        [
            "model.pipeline_model_parallel_size=2",
            "+model.activations_checkpoint_granularity=selective",
        ],
    ];
    for layout in layouts {
        let words =
            ["tiny.yaml", "trainer.devices=4", "model.micro_batch_size=1", layout[0], layout[1]];
        desk.run(&[&words[..], &[VALIDATE]].concat(), 0);
        let (several, files) = (lines(&desk), evaluation(&desk));
        assert_eq!(several.len(), one.len());
        for (one, several) in one.iter().zip(&several) {
            close(one, several, layout[0]);
        }
        close(&evaluated, &files, layout[0]);
        // The same bits of every step without answers between them.
        desk.run(&words, 0);
        let losses = |lines: &[Value]| -> Vec<String> {
            let lines = lines.iter().filter(|line| !line["grad_norm"].is_null());
            lines
                .map(|line| format!("{} {}", line["reduced_train_loss"], line["grad_norm"]))
                .collect()
        };
        assert_eq!(losses(&lines(&desk)), losses(&several));
    }
}

/// The metrics of the evaluate stage.
fn evaluation(desk: &Desk) -> Value {
    let summary = desk.json("runs/tiny/summary.json");
    let stages = summary["stages"].as_array().unwrap();
    stages.iter().find(|stage| stage["name"] == "evaluate").unwrap()["metrics"].clone()
}

#[test]
fn generate_takes_ranks() {
    let desk = Desk::new();
    desk.run(&["tiny.yaml", "-q", "--to", "train"], 0);
    let text = |ranks: &[&str]| {
        let words =
            ["generate", "runs/tiny", "--prompt", "oak: a tree kind:", "--prompt", "an", "--json"];
        desk.run(&[&words[..], ranks].concat(), 0)
    };
    let one = text(&[]);
    assert_eq!(text(&["--tp", "2"]), one);
    assert_eq!(text(&["--tp", "2", "--pp", "2"]), one);
    let refused = desk.output(&["generate", "runs/tiny", "--prompt", "a", "--tp", "3"]);
    assert_eq!(refused.status.code(), Some(2));
    let told = super::text(&refused.stderr);
    assert!(told.contains("2 attention heads cannot be shared by 3 tensor ranks"), "{told}");
}
