//! What `runs` lists of runs that failed, and where `generate` finds the model of one.

use super::{Desk, text};
use std::fs;

const FAILS: &[&str] = &["tiny.yaml", "-q", "--inject-fault", "0:2:error"];

/// A desk whose recipe measures the model before it is trained, too.
fn with_untrained() -> Desk {
    let desk = Desk::new();
    let untrained =
        "  untrained: {evaluate: {model: load, data: tokenize, split: test, metrics: [loss]}}\n";
    let recipe = desk.text("tiny.yaml").replace("  train: {", &format!("{untrained}  train: {{"));
    fs::write(desk.path("tiny.yaml"), recipe).unwrap();
    desk
}

#[test]
fn what_an_untrained_model_measures_is_no_result_of_a_training() {
    let desk = with_untrained();
    desk.run(FAILS, 1);
    let summary = desk.json("runs/tiny/summary.json");
    let stages = summary["stages"].as_array().unwrap();
    let measured = stages.iter().find(|stage| stage["name"] == "untrained").unwrap();
    assert!(measured["metrics"]["loss"].as_f64().unwrap() > 1.0, "{measured}");
    assert!(!desk.run(&["runs"], 0).contains("loss"), "no run has a result");

    desk.run(&["tiny.yaml", "-q", "model.seed=8"], 0);
    let table = desk.run(&["runs"], 0);
    let line = |state: &str| table.lines().find(|line| line.contains(state)).unwrap();
    assert!(line(" failed ").trim_end().ends_with('–'), "{table}");
    assert!(!line(" done ").contains('–'), "{table}");
    let listed = desk.run(&["runs", "--where", "loss>0"], 0);
    assert!(listed.contains(" done ") && !listed.contains(" failed "), "{listed}");
    // A recipe that trains nothing is about the model as it came.
    let cut = ["tiny.yaml", "-q", "~stages.train", "~stages.evaluate", "~stages.generate"];
    desk.run(&[&cut[..], &["++exp_manager.explicit_log_dir=runs/other"]].concat(), 0);
    let listed = desk.run(&["runs", "--where", "loss>0"], 0);
    assert!(listed.contains("runs/other"), "{listed}");
}

#[test]
fn the_last_run_stands_before_those_that_were_set_aside() {
    let desk = Desk::new();
    for seed in ["model.seed=1", "model.seed=2", "model.seed=3"] {
        desk.run(&["tiny.yaml", "-q", seed, "--to", "tokenize"], 0);
    }
    let listed = |words: &[&str]| -> Vec<String> {
        let text = desk.run(&[&["runs"], words].concat(), 0);
        let rows = text.lines().filter_map(|line| line.split_whitespace().next());
        rows.filter(|word| word.starts_with("runs/")).map(str::to_owned).collect()
    };
    let mut newest_first = listed(&[]);
    assert_eq!(newest_first, ["runs/tiny", "runs/tiny/run_1", "runs/tiny/run_0"]);
    assert_eq!(listed(&["--sort", "started"]), newest_first);
    newest_first.reverse();
    assert_eq!(listed(&["--reverse"]), newest_first);
}

#[test]
fn a_run_without_a_model_says_why_and_where_one_is() {
    let desk = Desk::new();
    let refused = |words: &[&str], told: [&str; 2]| {
        let output = desk.output(words);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{words:?}: {stderr}");
        assert!(told.iter().all(|told| stderr.contains(told)), "{words:?}: {stderr}");
    };
    let generate = ["generate", "runs/tiny", "--prompt", "oak:", "--max-length", "2"];
    desk.run(FAILS, 1);
    let failed = "`runs/tiny` holds no checkpoint: its run failed before it wrote one";
    refused(&generate, [failed, "help: start it again, or give another run"]);
    refused(&["convert", "runs/tiny", "out", "--to", "hf"], [failed, "help: "]);

    let seed = |seed: &'static str| [FAILS, &[seed]].concat();
    desk.run(&["tiny.yaml", "-q", "model.seed=8"], 0);
    desk.run(&generate, 0);
    desk.run(&seed("model.seed=9"), 1);
    desk.run(&seed("model.seed=10"), 1);
    // 0 and 2 failed as well.
    refused(&generate, [failed, "help: `runs/tiny/run_1` has one"]);
    desk.run(&["generate", "runs/tiny/run_1", "--prompt", "oak:", "--max-length", "2"], 0);

    let place = "++exp_manager.explicit_log_dir=runs/cached";
    let nothing = "exp_manager.create_checkpoint_callback=false";
    desk.run(&["tiny.yaml", "-q", place, nothing], 0);
    let cached = ["generate", "runs/cached", "--prompt", "oak:"];
    refused(&cached, ["its run left the model in the cache", ".sft-run/cache/train/"]);
    let place = "++exp_manager.explicit_log_dir=runs/rows";
    desk.run(&["tiny.yaml", "-q", place, "--to", "tokenize"], 0);
    refused(&["generate", "runs/rows", "--prompt", "oak:"], ["its run trained no model", "help: "]);
    fs::remove_dir_all(desk.path(".sft-run/cache/train")).unwrap();
    refused(&cached, ["not in the cache any more", "help: start it again"]);
}
