//! Walks: what runs again after a change, what is reused, what a failure leaves behind.

use super::fixture::*;
use serde_json::json;
use sft_run::artifacts::{Collect, Fate};
use sft_run::base::atomic_file;
use sft_run::base::digest::{Digest, files_below};
use sft_run::plan::{Draft, Missing, Plan};
use sft_run::runner::{self, Decision, Error, Reason};
use sft_run::spec::event::{Event, Sink};
use sft_run::spec::job::Job;
use sft_run::stages::{self as real, Folders};
use std::collections::BTreeSet;
use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

const ALL: [&str; 6] = ["tokenize", "shard", "load", "train", "evaluate", "generate"];

/// The plan over the workshop's rows, with another learning rate.
fn plan(shop: &Workshop, lr: f64) -> Plan {
    let mut stages = stages(&shop.rows);
    stages[3].job = job("train", &[("/train/model/optim/lr", json!(lr))]);
    stages[3].origins.insert("model.optim.lr".to_owned(), "override 1".to_owned());
    seal(stages)
}

#[test]
fn a_second_run_does_nothing() {
    let shop = Workshop::new();
    assert_eq!(ran(&shop.run(&plan(&shop, 1e-4))), ALL);
    let started = Instant::now();
    let again = shop.run(&plan(&shop, 1e-4));
    assert!(started.elapsed().as_secs_f64() < 0.5);
    assert_eq!(up_to_date(&again), ALL);
    assert!(shop.preview(&plan(&shop, 1e-4)).is_up_to_date());
}

#[test]
fn another_learning_rate_runs_training_and_what_follows() {
    let shop = Workshop::new();
    shop.run(&plan(&shop, 1e-4));
    let changed = shop.run(&plan(&shop, 2e-4));
    assert_eq!(ran(&changed), ["train", "evaluate", "generate"]);
    let back = shop.run(&plan(&shop, 1e-4));
    assert!(ran(&back).is_empty());
    assert_eq!(up_to_date(&back), ["tokenize", "shard", "load"]);
    let train = back.stages.iter().find(|done| done.stage == "train").unwrap();
    assert_eq!(train.decision, Decision::Restore);
}

#[test]
fn equal_outputs_cut_the_reruns_off() {
    let shop = Workshop::new();
    shop.run(&plan(&shop, 1e-4));
    overwrite(&shop.rows, "ROW ONE\nRow two\n");
    assert_eq!(ran(&shop.run(&plan(&shop, 1e-4))), ["tokenize"]);
    overwrite(&shop.rows, "row one\nrow three\n");
    let changed = shop.run(&plan(&shop, 1e-4));
    assert_eq!(ran(&changed), ["tokenize", "shard", "train", "evaluate", "generate"]);
}

#[test]
fn measured_files_cut_nothing_off_and_start_nothing() {
    let shop = Workshop::new();
    let clock = Mutex::new(0);
    let timed = |job: &Job, folders: &Folders, sink: &dyn Sink, stop: &AtomicBool| {
        let mut ticks = clock.lock().unwrap();
        *ticks += 1;
        let line = format!("{{\"tokens_per_second\": {ticks}}}\n");
        atomic_file::write(&folders.output.join("metrics.jsonl"), line.as_bytes()).unwrap();
        stand_in(job, folders, sink, stop)
    };
    let store = shop.store();
    let mut settings = shop.settings(&store);
    let (events, stop) = (Events::default(), AtomicBool::new(false));
    let plan = plan(&shop, 1e-4);
    let first = runner::run(&plan, &settings, &timed, &events, &stop).unwrap();
    settings.force.insert("train".to_owned());
    let second = runner::run(&plan, &settings, &timed, &events, &stop).unwrap();
    assert_eq!(ran(&second), ["train"]);
    let file = |report: &runner::Report| {
        fs::read_to_string(artifact(report, "train").output.join("metrics.jsonl")).unwrap()
    };
    assert_eq!(file(&second), "{\"tokens_per_second\": 7}\n");
    assert_eq!(artifact(&first, "train").record.output, artifact(&second, "train").record.output);
    assert!(events.notes().is_empty(), "{:?}", events.notes());
    // It is guarded against changes all the same.
    overwrite(&artifact(&second, "train").output.join("metrics.jsonl"), "edited");
    let reasons = &shop.preview(&plan).stages[3].decision;
    assert!(matches!(reasons, Decision::Run(reasons)
        if matches!(&reasons[0], Reason::OutputDamaged { what } if what.contains("metrics.jsonl"))));
}

#[test]
fn a_damaged_output_is_made_again() {
    let shop = Workshop::new();
    let first = shop.run(&plan(&shop, 1e-4));
    let output = artifact(&first, "shard").output.join("output.txt");
    let text = fs::read_to_string(&output).unwrap();
    overwrite(&output, &text.replace("packing", "PACKING"));
    assert_eq!(ran(&shop.run(&plan(&shop, 1e-4))), ["shard"]);
    assert_eq!(fs::read_to_string(&output).unwrap(), text);
    overwrite(&output.with_file_name("stray"), "");
    assert_eq!(ran(&shop.run(&plan(&shop, 1e-4))), ["shard"]);
    fs::remove_file(&output).unwrap();
    assert_eq!(ran(&shop.run(&plan(&shop, 1e-4))), ["shard"]);
}

#[test]
fn a_failing_stage_leaves_nothing_usable() {
    let shop = Workshop::new();
    let fails = |job: &Job, folders: &Folders, sink: &dyn Sink, stop: &AtomicBool| {
        let outcome = stand_in(job, folders, sink, stop);
        match job.kind() {
            "shard" => Err(real::Error::MissingInput("data".to_owned())),
            _ => outcome,
        }
    };
    let (store, events) = (shop.store(), Events::default());
    let plan = plan(&shop, 1e-4);
    let stop = AtomicBool::new(false);
    let error = runner::run(&plan, &shop.settings(&store), &fails, &events, &stop).unwrap_err();
    assert_eq!(
        error.to_string(),
        "stage `shard` failed: input `data` is missing: name a stage or a file for it in the recipe"
    );
    assert!(!shop.lock.exists());
    assert!(!store.root().join("shard").exists());
    assert!(files_below(&store.root().join("partial")).unwrap().is_empty());
    let failed = events
        .0
        .lock()
        .unwrap()
        .iter()
        .any(|event| matches!(event, Event::StageFailed { stage, .. } if stage == "shard"));
    assert!(failed);
    assert_eq!(ran(&shop.run(&plan)), &ALL[1..]);
}

#[test]
fn stopped_training_is_continued_and_other_stages_start_over() {
    let shop = Workshop::new();
    let stop = AtomicBool::new(false);
    let stops = |job: &Job, folders: &Folders, _: &dyn Sink, stop: &AtomicBool| {
        if job.kind() == "train" {
            let half = folders.output.join("half");
            let seen = half.exists();
            atomic_file::write(&half, b"half a model").unwrap();
            if !seen {
                stop.store(true, Ordering::Relaxed);
                return Err(real::Error::Stopped("step 5".to_owned()));
            }
        }
        stand_in(job, folders, &Events::default(), stop)
    };
    let (store, events) = (shop.store(), Events::default());
    let plan = plan(&shop, 1e-4);
    let error = runner::run(&plan, &shop.settings(&store), &stops, &events, &stop).unwrap_err();
    assert!(matches!(&error, Error::Stopped { stage, resumable: true } if stage == "train"));
    let Decision::Run(reasons) = &shop.preview(&plan).stages[3].decision else { panic!() };
    assert_eq!(reasons.first(), Some(&Reason::Continues));
    stop.store(false, Ordering::Relaxed);
    let done = runner::run(&plan, &shop.settings(&store), &stops, &events, &stop).unwrap();
    assert_eq!(ran(&done), ["train", "evaluate", "generate"]);
    assert!(artifact(&done, "train").output.join("half").exists());
}

#[test]
fn a_forced_stage_starts_over() {
    let shop = Workshop::new();
    let plan = plan(&shop, 1e-4);
    let first = shop.run(&plan);
    let store = shop.store();
    let name = artifact(&first, "train").record.fingerprint;
    let left = store.root().join("partial").join(name.to_string()).join("output/half");
    atomic_file::write(&left, b"left by a crash").unwrap();
    let mut settings = shop.settings(&store);
    settings.no_cache = true;
    let (events, stop) = (Events::default(), AtomicBool::new(false));
    let again = runner::run(&plan, &settings, &stand_in, &events, &stop).unwrap();
    assert_eq!(ran(&again), ALL);
    assert!(!artifact(&again, "train").output.join("half").exists());
    assert_eq!(again.standing, Some(sft_run::artifacts::Standing::Same));
}

#[test]
fn an_output_that_differs_for_the_same_work_is_told() {
    let shop = Workshop::new();
    let plan = plan(&shop, 1e-4);
    shop.run(&plan);
    let drifts = |job: &Job, folders: &Folders, sink: &dyn Sink, stop: &AtomicBool| {
        atomic_file::write(&folders.output.join("drift"), b"x").unwrap();
        stand_in(job, folders, sink, stop)
    };
    let store = shop.store();
    let mut settings = shop.settings(&store);
    settings.force.insert("load".to_owned());
    let (events, stop) = (Events::default(), AtomicBool::new(false));
    runner::run(&plan, &settings, &drifts, &events, &stop).unwrap();
    assert!(events.notes()[0].starts_with("`load` came out differently"), "{:?}", events.notes());
}

#[test]
fn parts_of_a_plan() {
    let shop = Workshop::new();
    let plan = plan(&shop, 1e-4);
    let store = shop.store();
    let (events, stop) = (Events::default(), AtomicBool::new(false));
    let mut settings = shop.settings(&store);
    settings.to = Some("shard".to_owned());
    let part = runner::run(&plan, &settings, &stand_in, &events, &stop).unwrap();
    assert_eq!(ran(&part), ["tokenize", "shard"]);
    assert!(part.standing.is_none() && !shop.lock.exists());
    settings.to = None;
    settings.from = Some("train".to_owned());
    let rest = runner::run(&plan, &settings, &stand_in, &events, &stop).unwrap();
    assert_eq!(ran(&rest), &ALL[2..]);
    let again = runner::run(&plan, &settings, &stand_in, &events, &stop).unwrap();
    assert_eq!(ran(&again), ["train", "evaluate", "generate"]);
    settings.from = Some("trian".to_owned());
    let error = runner::run(&plan, &settings, &stand_in, &events, &stop).unwrap_err();
    assert!(error.to_string().starts_with("--from names `trian`, which is not a stage"));
}

#[test]
fn nothing_begins_while_something_is_missing() {
    let shop = Workshop::new();
    let missing = |what: &str, key: &str, help: &str| Missing {
        what: what.to_owned(),
        key: key.to_owned(),
        help: help.to_owned(),
    };
    let draft = Draft {
        name: "small".to_owned(),
        stages: stages(&shop.rows),
        missing: vec![
            missing("no data", "model.data.data_prefix", "name token files"),
            missing("8 GPUs", "trainer.accelerator", "set it to cpu"),
        ],
        ..Draft::default()
    };
    let plan = draft.seal().unwrap();
    let error = shop.try_run(&plan, &Events::default()).unwrap_err();
    insta::assert_snapshot!(error);
    assert!(!shop.folder.path().join("cache").exists());
    assert!(!shop.preview(&plan).is_up_to_date());
}

#[test]
fn an_input_that_changes_while_it_is_read_spoils_the_stage() {
    let shop = Workshop::new();
    let edits = |job: &Job, folders: &Folders, sink: &dyn Sink, stop: &AtomicBool| {
        let outcome = stand_in(job, folders, sink, stop);
        if job.kind() == "tokenize" {
            overwrite(&folders.inputs["rows.0"], "another row\n");
        }
        outcome
    };
    let (store, events, stop) = (shop.store(), Events::default(), AtomicBool::new(false));
    let plan = plan(&shop, 1e-4);
    let error = runner::run(&plan, &shop.settings(&store), &edits, &events, &stop).unwrap_err();
    assert!(matches!(error, Error::InputChanged { .. }), "{error}");
    assert!(!store.root().join("tokenize").exists());
}

#[test]
fn the_checkpoint_stands_in_the_run_folder() {
    let shop = Workshop::new();
    let run_folder = shop.folder.path().join("runs/small");
    let store = shop.store();
    let (events, stop) = (Events::default(), AtomicBool::new(false));
    let mut settings = shop.settings(&store);
    settings.run_folder = Some(&run_folder);
    let weights = run_folder.join("checkpoints/train/checkpoint/model.safetensors");
    for lr in [1e-4, 1e-4, 2e-4] {
        let plan = plan(&shop, lr);
        let done = runner::run(&plan, &settings, &stand_in, &events, &stop).unwrap();
        assert_eq!(done.stages[3].checkpoint, Some(run_folder.join("checkpoints/train")));
        assert_eq!(fs::read(&weights).unwrap(), b"weights");
        let text = fs::read_to_string(run_folder.join("checkpoints/train/output.txt")).unwrap();
        assert!(text.contains(&format!("\"lr\":{lr}")), "{text}");
    }
    // A file that somebody removed comes back, and clearing the cache takes nothing away.
    fs::remove_file(&weights).unwrap();
    runner::run(&plan(&shop, 2e-4), &settings, &stand_in, &events, &stop).unwrap();
    fs::remove_dir_all(store.root()).unwrap();
    assert_eq!(fs::read(&weights).unwrap(), b"weights");
}

#[test]
fn interrupted_training_is_collected_when_asked_for() {
    let shop = Workshop::new();
    let store = shop.store();
    let names = [Digest::of_bytes(b"saved"), Digest::of_bytes(b"not saved")];
    let file = |name: Digest, file: &str| {
        store.root().join("partial").join(name.to_string()).join("output").join(file)
    };
    atomic_file::write(&file(names[0], "resume/step-00000002/manifest.json"), b"{}").unwrap();
    atomic_file::write(&file(names[1], "metrics.jsonl"), b"").unwrap();
    let keep = BTreeSet::new();
    let collected = store.collect(&keep, Collect::default()).unwrap();
    let with = |fate| collected.iter().filter(move |entry| entry.fate == fate);
    assert!(with(Fate::Resumable).map(|entry| entry.fingerprint).eq([names[0]]));
    assert!(with(Fate::Removed).map(|entry| entry.fingerprint).eq([names[1]]));
    let collected = store.collect(&keep, Collect { dry: false, partial: true }).unwrap();
    assert_eq!(collected.len(), 1);
    let entry = &collected[0];
    assert_eq!((entry.fate, entry.bytes), (Fate::Removed, 2));
    assert_eq!(entry.name, format!("partial/{}", names[0]));
}

#[test]
fn what_no_recipe_used_last_is_collected() {
    let shop = Workshop::new();
    shop.run(&plan(&shop, 1e-4));
    let last = shop.run(&plan(&shop, 2e-4));
    let store = shop.store();
    let keep = store.used_by_last_runs().unwrap();
    let would = store.collect(&keep, Collect { dry: true, partial: false }).unwrap();
    let did = store.collect(&keep, Collect::default()).unwrap();
    assert_eq!(would, did);
    let count = |fate| did.iter().filter(|entry| entry.fate == fate).count();
    assert_eq!((count(Fate::Removed), count(Fate::Kept)), (3, 6));
    assert!(artifact(&last, "train").output.exists());
    assert_eq!(ran(&shop.run(&plan(&shop, 2e-4))), [""; 0]);
    assert_eq!(ran(&shop.run(&plan(&shop, 1e-4))), ["train", "evaluate", "generate"]);
}
