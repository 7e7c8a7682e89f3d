//! A rank that fails or panics in the middle of a step ends the program: soon, with exit code 1 and
//! that rank's error first.

use super::{Desk, text};
use std::io::Read;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// What the program wrote to stderr, which must end by itself with exit code 1; one that hangs is
/// killed after two minutes.
fn failed(desk: &Desk, words: &[&str]) -> String {
    let mut command = desk.command(words);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if start.elapsed() > Duration::from_mins(2) {
            child.kill().unwrap();
            panic!("{words:?} hangs");
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let mut told = Vec::new();
    child.stderr.take().unwrap().read_to_end(&mut told).unwrap();
    let told = text(&told);
    assert_eq!(status.code(), Some(1), "{words:?}: {told}");
    told
}

#[test]
fn each_rank_that_fails_or_panics_ends_the_run_with_its_error_first() {
    let desk = Desk::new();
    desk.run(&["tiny.yaml", "--to", "load"], 0);
    let pipeline = "model.pipeline_model_parallel_size=2";
    let layouts = [(pipeline, "pipeline"), ("+model.sequence_parallel=true", "data")];
    for (key, axis) in layouts {
        for rank in 0..4 {
            for kind in ["error", "panic"] {
                let fault = format!("{rank}:3:{kind}");
                let words = [
                    "tiny.yaml",
                    "trainer.devices=4",
                    "model.micro_batch_size=1",
                    "model.tensor_model_parallel_size=2",
                    key,
                    "--inject-fault",
                    &fault,
                ];
                let told = failed(&desk, &words);
                let first = told.lines().find(|line| !line.trim().is_empty()).unwrap();
                let verb = if kind == "panic" { "panic" } else { "fail" };
                let asked = format!("rank {rank} was asked to {verb} in step 3");
                if kind == "panic" {
                    assert!(first.contains(&format!("thread 'rank {rank}'")), "{told}");
                } else {
                    assert!(first.contains("failed:"), "{told}");
                }
                let place =
                    format!("rank {rank} of 4 failed ({axis} {}, tensor {})", rank / 2, rank % 2);
                let line = told.lines().find(|line| line.contains("failed:")).unwrap();
                assert!(line.contains(&place) && line.contains(&asked), "{told}");
                assert!(!told.contains("given up"), "only the first failure is told: {told}");
                let summary = desk.json("runs/tiny/summary.json");
                assert_eq!(summary["state"], "failed");
            }
        }
    }
    // What the failed run left is gone on from; one device's panic is an error like any other.
    desk.run(&["tiny.yaml"], 0);
    let told = failed(&desk, &["tiny.yaml", "--force", "train", "--inject-fault", "0:12:panic"]);
    assert!(told.contains("rank 0 of 1 failed: it panicked"), "{told}");
}

#[test]
fn a_panic_says_whether_the_same_command_goes_on() {
    let desk = Desk::new();
    let words = |fault: &'static str| ["tiny.yaml", "trainer.devices=2", "--inject-fault", fault];
    // The recipe saves every five steps.
    let anew = failed(&desk, &words("1:3:panic"));
    assert!(anew.contains("help: start the same command again to run it anew"), "{anew}");
    let error = failed(&desk, &words("1:7:error"));
    assert!(!error.contains("help: "), "an error comes again: {error}");
    let goes_on = "help: start the same command again to continue it";
    let told = failed(&desk, &words("1:8:panic"));
    assert!(told.contains(goes_on), "{told}");
    let output = desk.output(&[&words("1:8:panic")[..], &["--json"]].concat());
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let help = document["error"]["help"].as_str().unwrap();
    assert!(format!("help: {help}").starts_with(goes_on), "{document}");
    assert_eq!(document["error"]["code"], "run::failed");
    assert!(help.ends_with("report a panic that comes again"), "{help}");
    // This one starts over, and would again.
    let forced = failed(&desk, &[&words("1:8:panic")[..], &["--no-cache"]].concat());
    assert!(forced.contains("to run it anew"), "{forced}");
    let output = desk.run(&["tiny.yaml", "trainer.devices=2"], 0);
    assert!(output.contains("going on after step 5"), "{output}");
}

#[test]
fn a_fault_that_no_rank_or_step_comes_to_is_refused() {
    let desk = Desk::new();
    for fault in ["1:3:error", "0:13:panic", "0:0:panic"] {
        let output = desk.output(&["tiny.yaml", "--inject-fault", fault]);
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{told}");
        assert!(told.contains("no training of this recipe has"), "{told}");
    }
    let output = desk.output(&["tiny.yaml", "--inject-fault", "0:3:hang"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("RANK:STEP:error"), "{}", text(&output.stderr));
}
