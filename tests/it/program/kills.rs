//! A run that saves every step, killed again and again at any moment, ends as if nothing was.

use super::{Desk, text};
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

const KILLS: usize = 50;

/// Enough steps that most kills hit training.
const RUN: &[&str] = &[
    "tiny.yaml",
    "trainer.max_steps=60",
    "trainer.val_check_interval=20",
    "stages.train.train.checkpoint_every=1",
];

/// Random numbers that are the same in every run of the test.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// The files of the trained checkpoint.
fn checkpoint(desk: &Desk) -> Vec<(String, Vec<u8>)> {
    let folder = desk.path("runs/tiny/checkpoints/train/checkpoint");
    let read = |path: &Path| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        (name, fs::read(path).unwrap())
    };
    let entries = fs::read_dir(folder).unwrap();
    let mut files: Vec<_> = entries.map(|entry| read(&entry.unwrap().path())).collect();
    files.sort();
    files
}

#[test]
fn fifty_kills_at_any_moment_leave_the_bits_of_an_uninterrupted_run() {
    let whole = Desk::new();
    whole.run(RUN, 0);
    let (expected, metrics) = (checkpoint(&whole), "runs/tiny/metrics.jsonl");
    let mut dice = Dice(1);
    let (mut killed, mut resumed, mut rounds) = (0, 0, 0);
    while killed < KILLS {
        let desk = Desk::new();
        rounds += 1;
        assert!(rounds < KILLS, "runs end before they are killed");
        loop {
            let mut child =
                desk.command(RUN).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
            // Once 50 are done, the run may end.
            if killed < KILLS {
                std::thread::sleep(Duration::from_millis(dice.below(400)));
                child.kill().unwrap();
            }
            let output = child.wait_with_output().unwrap();
            let said = text(&output.stdout);
            assert!(!said.contains("cannot be used"), "a checkpoint was half written: {said}");
            resumed += usize::from(said.contains("going on after step"));
            match output.status.code() {
                None => killed += 1,
                Some(code) => {
                    assert_eq!(code, 0, "{said}");
                    break;
                }
            }
        }
        assert_eq!(desk.numbers(metrics), whole.numbers(metrics));
        assert!(checkpoint(&desk) == expected, "other bits after {killed} kills");
    }
    assert!(resumed >= KILLS / 5, "only {resumed} runs went on from a checkpoint");
}
