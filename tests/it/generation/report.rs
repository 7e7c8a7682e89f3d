//! `report.html` of a made-up run folder.

use sft_run::base::atomic_file;
use sft_run::base::seed::Stream;
use sft_run::report::html;
use sft_run::report::record::RunRecord;
use sft_run::report::summary::{RunState, StageState, StageSummary, Summary, VERSION};
use sft_run::spec::event::{Sample, StepMetrics, ValidationMetrics};
use sft_run::spec::generation::StopReason;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

fn facts(pairs: &[(&str, f64)]) -> BTreeMap<String, f64> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()
}

fn stage(name: &str, kind: &str, seconds: f64, numbers: &[(&str, f64)]) -> StageSummary {
    let ran = seconds > 0.0;
    let reason = if ran { "no output with this fingerprint is in the cache" } else { "" };
    StageSummary {
        name: name.to_owned(),
        kind: kind.to_owned(),
        state: if ran { StageState::Run } else { StageState::Reused },
        reason: reason.to_owned(),
        seconds,
        fingerprint: sft_run::base::digest::Digest::of_bytes(name.as_bytes()).to_string(),
        output: format!(".sft-run/cache/{name}"),
        facts: facts(numbers),
        metrics: BTreeMap::new(),
        intervals: BTreeMap::new(),
    }
}

fn summary() -> Summary {
    let mut stages = vec![
        stage("tokenize", "tokenize", 0.0, &[("samples", 82_192.0), ("tokens", 1_893_204.0)]),
        stage("shard", "shard", 0.0, &[("sequences", 7_420.0)]),
        stage("load", "load", 0.11, &[("parameters", 2_012_544.0)]),
        stage("untrained", "evaluate", 3.41, &[("samples", 2500.0)]),
        stage("train", "train", 97.3, &[("steps", 400.0), ("train_loss", 2.1034)]),
        stage("evaluate", "evaluate", 3.02, &[("samples", 2500.0)]),
        stage("generate", "generate", 0.42, &[("prompts", 4.0)]),
    ];
    "model.optim.lr: 0.001 → 0.003 (recipes/quickstart.yaml:61)".clone_into(&mut stages[4].reason);
    stages[3].metrics =
        facts(&[("exact_match", 0.0), ("loss", 8.3141), ("token_f1", 0.0012), ("length", 31.2)]);
    stages[5].metrics =
        facts(&[("exact_match", 0.5384), ("loss", 0.6127), ("token_f1", 0.5391), ("length", 7.9)]);
    let environment = [
        ("sft-run", "0.1.0"),
        ("system", "Linux 6.1 x86_64"),
        ("processor", "AMD EPYC 9B14, 2 cores"),
        ("threads", "2"),
        ("device", "cpu, fp32"),
        ("rustc", "1.95.0"),
    ];
    Summary {
        inputs: BTreeMap::new(),
        crates: BTreeMap::new(),
        device_seconds: 0.0,
        version: VERSION,
        name: "quickstart".to_owned(),
        recipe: "recipes/quickstart.yaml".to_owned(),
        command: ["sft-run", "recipes/quickstart.yaml", "model.optim.lr=3e-3"]
            .map(str::to_owned)
            .to_vec(),
        started: "2026-11-22T23:31:07Z".to_owned(),
        seconds: 104.9,
        state: RunState::Done,
        error: None,
        parameters: Some(2_012_544),
        stages,
        environment: environment.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
    }
}

fn metrics_lines() -> String {
    let noise = Stream::new(3, "noise");
    let mut text = String::new();
    for step in 1..=400u64 {
        let along = step as f64 / 400.0;
        let wave = noise.normal(step);
        let rate = if step <= 20 {
            3e-3 * step as f64 / 20.0
        } else {
            1e-4 + 1.45e-3 * (1.0 + (std::f64::consts::PI * (step - 20) as f64 / 380.0).cos())
        };
        let metrics = StepMetrics {
            step,
            consumed_samples: step * 32,
            reduced_train_loss: 2.0 + 6.3 * (-9.0 * along).exp() + 0.07 * wave,
            lr: rate,
            grad_norm: Some(0.6 + 3.0 * (-20.0 * along).exp() + 0.1 * wave.abs()),
            loss_scale: None,
            tokens: 8100,
            learned_tokens: 2300,
            tokens_per_second: 33_000.0 + 900.0 * noise.normal(step + 1000),
        };
        writeln!(text, "{}", serde_json::to_string(&metrics).expect("plain data")).expect("text");
        if step % 50 == 0 {
            let val_loss = 2.05 + 6.0 * (-9.0 * along).exp();
            let line = ValidationMetrics {
                step,
                consumed_samples: step * 32,
                val_loss,
                metrics: BTreeMap::new(),
            };
            writeln!(text, "{}", serde_json::to_string(&line).expect("plain data")).expect("text");
        }
    }
    text
}

const ROWS: &[(&str, &str, &str, &str)] = &[
    (
        "lighthouse: a tower with a light that gives warning of shoals to passing ships kind:",
        "artifact",
        "artifact",
        "ingly of of the",
    ),
    ("heath hen: extinct prairie chicken kind:", "animal", "animal", "the the the"),
    (
        "sorrow: an emotion of great sadness associated with loss or bereavement kind:",
        "feeling",
        "state",
        "",
    ),
    (
        "gravity: (physics) the force of attraction between all masses in the universe kind:",
        "phenomenon",
        "phenomenon",
        "act <b>& \"act\"</b>",
    ),
    (
        "trefoil arch: a pointed arch having cusps in the intrados on either side of the apex kind:",
        "artifact",
        "artifact",
        "er er er er er er er er",
    ),
    ("Zulu: the Bantu language of the Zulu people kind:", "communication", "person", "s of"),
    (
        "monocot family: family of flowering plants having a single cotyledon (embryonic leaf) kind:",
        "plant",
        "plant",
        "a",
    ),
    ("naïveté: lack of sophistication or worldliness kind:", "attribute", "attribute", "日本"),
];

fn sample(row: usize, is_trained: bool) -> Sample {
    let (prompt, expected, trained, untrained) = ROWS[row % ROWS.len()];
    let output = if is_trained { trained } else { untrained };
    let hit = if output == expected { 1.0 } else { 0.0 };
    Sample {
        task: Some("kind".to_owned()),
        prompt: if row < ROWS.len() { prompt.to_owned() } else { format!("{row} {prompt}") },
        expected: Some(format!(" {expected}")),
        output: format!(" {output}"),
        stop_reason: if is_trained { StopReason::EndOfSequence } else { StopReason::MaxLength },
        tokens: 3,
        token_ids: Vec::new(),
        logprob: Vec::new(),
        full_logprob: Vec::new(),
        scores: facts(&[("exact_match", hit)]),
    }
}

fn write_samples(folder: &Path) {
    let mut files = Vec::new();
    for (stage, is_trained) in [("untrained", false), ("evaluate", true)] {
        let lines = (0..250).map(|row| serde_json::to_string(&sample(row, is_trained)));
        let lines: Vec<String> = lines.collect::<Result<_, _>>().expect("plain data");
        let path = folder.join(format!("{stage}.jsonl"));
        atomic_file::write(&path, (lines.join("\n") + "\n").as_bytes()).expect("writable");
        files.push((stage, path));
    }
    let texts = [
        ("define lighthouse:", " a building or tower that is used to give light for ships"),
        ("define moon river:", " a river in the northern part of the moon; flows into the sea"),
        ("define quark soup:", " a soup made of beans and cooked in a thick sauce"),
        ("define bird:", " any of various small birds of the family of the order of the birds"),
    ];
    let texts = texts.map(|(prompt, output)| {
        let sample = Sample {
            task: None,
            prompt: prompt.to_owned(),
            expected: None,
            output: output.to_owned(),
            stop_reason: StopReason::EndOfSequence,
            tokens: 14,
            token_ids: Vec::new(),
            logprob: Vec::new(),
            full_logprob: Vec::new(),
            scores: BTreeMap::new(),
        };
        serde_json::to_string(&sample).expect("plain data")
    });
    let path = folder.join("generations.jsonl");
    atomic_file::write(&path, texts.join("\n").as_bytes()).expect("writable");
    files.push(("generate", path));
    let files: Vec<_> = files.into_iter().map(|(stage, path)| (stage.to_owned(), path)).collect();
    sft_run::report::samples::gather(folder, &files).expect("gathers");
}

fn run_folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path();
    summary().write(path).expect("writable");
    atomic_file::write(&path.join("metrics.jsonl"), metrics_lines().as_bytes()).expect("writable");
    write_samples(path);
    let recipe = include_str!("../../fixtures/generation/recipe.resolved.yaml");
    atomic_file::write(&path.join("recipe.resolved.yaml"), recipe.as_bytes()).expect("writable");
    folder
}

#[test]
fn the_page_shows_the_run_and_needs_nothing_else() {
    let folder = run_folder();
    html::write(folder.path()).expect("a page");
    let page = std::fs::read_to_string(folder.path().join(html::FILE)).expect("readable");
    // SFT_REPORT_COPY=page.html cargo test …: a copy to look at in a browser.
    if let Some(path) = std::env::var_os("SFT_REPORT_COPY") {
        std::fs::copy(folder.path().join(html::FILE), path).expect("writable");
    }
    for shown in [
        "0.5384",
        "untrained: 0",
        "250 are in samples.jsonl",
        "heath hen",
        "1m 45s",
        "2,012,544",
        "model.optim.lr: 0.001",
        "define moon river:",
        "AMD EPYC",
    ] {
        assert!(page.contains(shown), "`{shown}` is not on the page");
    }
    // No other file, no network.
    for outside in ["src=", "href=\"http", "url(", "@import", "//cdn"] {
        assert!(!page.contains(outside), "`{outside}` is on the page");
    }
}

#[test]
fn rows_with_equal_texts_stay_rows_of_their_own() {
    let folder = run_folder();
    let mut record = RunRecord::read(folder.path()).expect("a run folder");
    // Six rows with one prompt and one answer, as a choice that repeats its prompt has them.
    let stages = ["train, step 4", "train, step 8"];
    let rows =
        stages.iter().flat_map(|stage| (0..6).map(|_| ((*stage).to_owned(), sample(1, true))));
    record.samples = rows.collect();
    let page = html::render(&record).expect("a page");
    assert_eq!(page.matches("<tr data-hits=\"11\">").count(), 6, "both steps in one row");
}

#[test]
fn text_of_the_run_is_escaped() {
    let folder = run_folder();
    let mut record = RunRecord::read(folder.path()).expect("a run folder");
    record.summary.name = "</title><script>alert(1)</script>".to_owned();
    record.trainings[0].stage = "</script><script>alert(2)</script>".to_owned();
    let page = html::render(&record).expect("a page");
    assert!(page.contains("act &lt;b&gt;&amp; &quot;act&quot;&lt;&#x2f;b&gt;"));
    assert!(!page.contains("<script>alert"), "text became a script");
}

#[test]
fn a_record_holds_what_the_folder_holds() {
    let folder = run_folder();
    let record = RunRecord::read(folder.path()).expect("a run folder");
    assert_eq!(record.summary, summary());
    assert_eq!(record.trainings.len(), 1);
    assert_eq!(record.trainings[0].steps.len(), 400);
    assert_eq!(record.trainings[0].validations.len(), 8);
    assert_eq!(record.samples.len(), 504);
    assert_eq!(record.samples[250], ("evaluate".to_owned(), sample(0, true)));
}

#[test]
fn a_broken_line_is_named() {
    let folder = run_folder();
    let path = folder.path().join("metrics.jsonl");
    let text = metrics_lines().replacen("\"step\":3,", "", 1);
    atomic_file::write(&path, text.as_bytes()).expect("writable");
    let error = RunRecord::read(folder.path()).unwrap_err();
    assert!(error.to_string().contains("metrics.jsonl` line 3"), "{error}");
    std::fs::remove_file(folder.path().join("summary.json")).expect("removable");
    let error = RunRecord::read(folder.path()).unwrap_err();
    assert!(error.to_string().contains("summary.json"), "{error}");
}
