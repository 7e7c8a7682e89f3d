//! What stands around a run: TensorBoard files, the table of metrics, notifications, provenance.

use crate::program::{Desk, text};
use std::fs;

/// A desk whose recipe has these lines too.
fn with(lines: &str) -> Desk {
    let desk = Desk::new();
    let recipe = desk.text("tiny.yaml") + lines;
    fs::write(desk.path("tiny.yaml"), recipe).unwrap();
    desk
}

#[test]
fn the_table_of_metrics_has_a_row_for_each_line() {
    let desk = Desk::new();
    desk.run(&["tiny.yaml", "-q"], 0);
    let csv = desk.text("runs/tiny/metrics.csv");
    let lines = desk.text("runs/tiny/metrics.jsonl").lines().count();
    assert_eq!(csv.lines().count(), lines + 1);
    let head = csv.lines().next().unwrap();
    assert!(head.starts_with("step,") && head.contains("val_loss"), "{head}");
}

#[test]
fn a_run_says_where_it_comes_from() {
    let desk = Desk::new();
    desk.run(&["tiny.yaml", "-q"], 0);
    let summary = desk.json("runs/tiny/summary.json");
    let rows = summary["inputs"]["nouns.jsonl"].as_str().unwrap();
    assert_eq!(rows.len(), 64);
    assert!(summary["crates"]["candle-core"].is_string() && summary["command"].is_array());
    assert!(summary["device_seconds"].as_f64().unwrap() > 0.0);
}

#[test]
fn event_files_hold_every_number_and_are_set_aside_with_their_run() {
    let desk = Desk::new();
    let on = "exp_manager.create_tensorboard_logger=true";
    let words = ["tiny.yaml", "-q", &format!("+{on}")];
    desk.run(&words, 0);
    let files = || {
        let entries = fs::read_dir(desk.path("runs/tiny")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with("events.out.tfevents.")).collect::<Vec<_>>()
    };
    let [file] = files().try_into().unwrap();
    let bytes = fs::read(desk.path("runs/tiny").join(&file)).unwrap();
    let count =
        |word: &str| bytes.windows(word.len()).filter(|part| *part == word.as_bytes()).count();
    assert_eq!((count("reduced_train_loss"), count("evaluate/exact_match")), (12, 1));
    assert!(count("val_loss") >= 3 && count("generate/samples") == 1);
    // The same run again trains nothing: the file stays the only one.
    desk.run(&words, 0);
    assert_eq!(files(), std::slice::from_ref(&file));
    desk.run(&[&words[..], &["trainer.max_steps=3"]].concat(), 0);
    assert!(desk.path("runs/tiny/run_0").join(&file).is_file());
}

#[test]
fn programs_are_told_how_a_run_ended() {
    let notify = "\nnotify:\n  on_success: [sh, -c, 'cat > told.json; echo $SFT_RUN_STATE > state']\n  \
                  on_failure: [sh, -c, 'echo went wrong >&2; exit 3']\n";
    let desk = with(notify);
    desk.run(&["tiny.yaml", "-q"], 0);
    assert_eq!(desk.text("state"), "done\n");
    assert_eq!(desk.json("told.json")["name"], "tiny");
    desk.run(&["tiny.yaml", "-q"], 0);
    assert_eq!(desk.text("state"), "up to date\n");
    // The prompt is longer than the model reads: generation fails, and so does the told program.
    let long = format!("stages.generate.generate.prompts=['{}']", "oak ".repeat(200));
    let output = desk.output(&["tiny.yaml", "-q", &long]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("notify.on_failure") && said.contains("went wrong"), "{said}");
}

#[test]
fn programs_are_told_of_a_run_that_could_not_begin() {
    let desk = with("\nnotify:\n  on_failure: [sh, -c, 'cat > told.json']\n");
    fs::remove_file(desk.path("nouns.jsonl")).unwrap();
    let output = desk.output(&["tiny.yaml", "-q"]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
    let told = desk.json("told.json");
    assert_eq!((&told["name"], &told["state"]), (&"tiny".into(), &"failed".into()));
    assert!(told["error"].as_str().unwrap().contains("nouns.jsonl"), "{told}");
}

#[test]
fn a_notification_without_a_program_is_refused() {
    let desk = with("\nnotify: {on_success: []}\n");
    let output = desk.output(&["validate", "tiny.yaml"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("names no program"));
}
