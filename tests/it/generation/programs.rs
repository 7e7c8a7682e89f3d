//! Metric programs that do well, and that do everything wrong.

use sft_run::metrics::Texts;
use sft_run::metrics::program::{Error, Program};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

/// What a shell script makes of `rows` rows, what it said on stderr, and what became of it.
fn run(script: &str, rows: usize, seconds: f64) -> (Result<Vec<f64>, Error>, Vec<String>) {
    let outputs: Vec<String> = (0..rows).map(|row| "x".repeat(row)).collect();
    let row = |output| Texts { prompt: "p", expected: "e\n", output };
    let rows: Vec<Texts<'_>> = outputs.iter().map(|output| row(output.as_str())).collect();
    let command = ["sh", "-c", script].map(str::to_owned).to_vec();
    let program = Program { command, patience: Duration::from_secs_f64(seconds) };
    let mut heard = Vec::new();
    let stop = AtomicBool::new(false);
    let scores = program.scores(&rows, &stop, &mut |line| heard.push(line.to_owned()));
    (scores, heard)
}

fn fails(script: &str, seconds: f64) -> String {
    let started = Instant::now();
    let error = run(script, 5, seconds).0.expect_err("it does wrong").to_string();
    assert!(started.elapsed() < Duration::from_mins(1), "it was not ended");
    error
}

#[test]
fn a_program_answers_a_score_a_line() {
    let script = "while read -r line; do echo reading >&2; echo ${#line}; done";
    let (scores, heard) = run(script, 300, 20.0);
    let scores = scores.expect("it does well");
    assert_eq!(scores.len(), 300);
    assert!(scores.windows(2).all(|pair| pair[1] - pair[0] == 1.0), "each row is a letter longer");
    assert_eq!(heard, vec!["reading"; 300]);
}

#[test]
fn a_program_that_hangs_is_ended_with_its_children() {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    let child = file.path().display();
    let error = fails(&format!("echo 1; sleep 300 & echo $! > {child}; wait"), 0.5);
    assert!(error.contains("hangs: no score for row 2 of 5 within 0.5 s"), "{error}");
    let id = std::fs::read_to_string(file.path()).expect("the child's number");
    let gone = || {
        let state = std::fs::read_to_string(format!("/proc/{}/stat", id.trim()));
        state.map_or(true, |state| state.contains(") Z"))
    };
    let started = Instant::now();
    while !gone() {
        assert!(started.elapsed() < Duration::from_secs(20), "`sleep` lives on");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_program_that_crashes_is_told_with_its_last_words() {
    let error = fails("echo 1; echo 2; echo no memory >&2; exit 7", 20.0);
    assert!(error.contains("without a score for row 3 of 5"), "{error}");
    assert!(error.contains("status: 7") && error.contains("no memory"), "{error}");
    let error = fails("for row in 1 2 3 4 5; do echo 1; done; exit 3", 20.0);
    assert!(error.contains("after the last score"), "{error}");
    let error = fails("kill -9 $$", 20.0);
    assert!(error.contains("signal: 9"), "{error}");
}

#[test]
fn a_program_that_prints_garbage_is_told_which_line() {
    let error = fails("echo 1; echo two", 20.0);
    assert!(error.contains("answered `two` for row 2"), "{error}");
    let error = fails("echo 1; echo NaN", 20.0);
    assert!(error.contains("answered `NaN` for row 2"), "{error}");
}

#[test]
fn a_program_that_prints_without_end_is_ended() {
    let error = fails("yes 1", 20.0);
    assert!(error.contains("more than the 5 rows"), "{error}");
    let error = fails("yes 1 | tr -d '\\n'", 20.0);
    assert!(error.contains("no number") && error.len() < 300, "{error}");
    let error = fails("head -c 10000000000 /dev/zero", 20.0);
    assert!(error.contains("no number"), "{error}");
    let error = fails("yes trouble >&2", 1.0);
    assert!(error.contains("hangs"), "{error}");
}

#[test]
fn a_program_that_is_not_there_is_named() {
    let command = vec!["no-such-program".to_owned()];
    let program = Program { command, patience: Duration::from_secs(1) };
    let stop = AtomicBool::new(false);
    let error = program.scores(&[], &stop, &mut |_| ()).expect_err("it is not there").to_string();
    assert!(error.contains("cannot start `no-such-program`"), "{error}");
}
