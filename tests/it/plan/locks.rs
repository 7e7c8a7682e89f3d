//! The lock file: what it holds, when it is written, when it is left alone.

use super::fixture::*;
use serde_json::json;
use sft_run::artifacts::{Lock, Standing};
use sft_run::base::atomic_file;
use sft_run::runner;
use sft_run::spec::event::Sink;
use sft_run::spec::job::Job;
use sft_run::stages::Folders;
use std::fs;
use std::sync::atomic::AtomicBool;

#[test]
fn it_records_what_a_run_used_and_made() {
    let shop = Workshop::new();
    let report = shop.run(&seal(stages(&shop.rows)));
    assert!(report.lock_written);
    let text = fs::read_to_string(&shop.lock).unwrap();
    let lock = Lock::read(&shop.lock).unwrap().unwrap();
    assert_eq!(lock.text(), text);
    assert_eq!(lock.environment, shop.environment);
    let train = &lock.stages["train"];
    let mut settings = job_json("train")["train"].clone();
    settings["trainer"].as_object_mut().unwrap().remove("log_every_n_steps");
    assert_eq!(train.settings, settings);
    assert_eq!(train.fingerprint, artifact(&report, "train").record.fingerprint);
    assert_eq!(train.inputs["data"].from, "stage shard");
    assert_eq!(train.inputs["data"].digest, lock.stages["shard"].output);
    assert_eq!(lock.stages["tokenize"].inputs["rows.0"].from, "file data/rows.jsonl");
    // One value a line with keys in order, so that two versions of it can be compared by eye.
    insta::assert_snapshot!(text.lines().take(24).collect::<Vec<_>>().join("\n"));
    assert!(!text.contains(&*shop.folder.path().to_string_lossy()));
}

#[test]
fn a_run_in_another_environment_leaves_it_alone() {
    let mut shop = Workshop::new();
    let plan = seal(stages(&shop.rows));
    shop.run(&plan);
    let before = fs::read(&shop.lock).unwrap();
    shop.environment.insert("machine".to_owned(), "two".to_owned());
    let events = Events::default();
    let report = shop.try_run(&plan, &events).unwrap();
    assert!(!report.lock_written);
    assert_eq!(fs::read(&shop.lock).unwrap(), before);
    assert!(events.notes()[0].contains("is left alone"), "{:?}", events.notes());
    assert!(events.notes()[0].contains("machine: one → two"), "{:?}", events.notes());
    assert!(events.notes()[0].contains("all outputs are the same"), "{:?}", events.notes());
}

#[test]
fn so_does_one_whose_numbers_come_out_differently_there() {
    let mut shop = Workshop::new();
    let plan = seal(stages(&shop.rows));
    shop.run(&plan);
    let before = fs::read(&shop.lock).unwrap();
    fs::remove_dir_all(shop.folder.path().join("cache")).unwrap();
    shop.environment.insert("machine".to_owned(), "two".to_owned());
    let rounds = |job: &Job, folders: &Folders, sink: &dyn Sink, stop: &AtomicBool| {
        if job.kind() == "train" {
            atomic_file::write(&folders.output.join("rounding"), b"other").unwrap();
        }
        stand_in(job, folders, sink, stop)
    };
    let (store, events, stop) = (shop.store(), Events::default(), AtomicBool::new(false));
    let report = runner::run(&plan, &shop.settings(&store), &rounds, &events, &stop).unwrap();
    let Some(Standing::OtherEnvironment { outputs, .. }) = report.standing else { panic!() };
    assert_eq!(outputs, ["evaluate", "generate", "train"]);
    assert_eq!(fs::read(&shop.lock).unwrap(), before);
    // The next run of this machine knows its own numbers.
    assert_eq!(up_to_date(&shop.run(&plan)).len(), 6);
}

#[test]
fn numbers_that_differ_in_the_same_environment_are_told_and_the_lock_stays() {
    let shop = Workshop::new();
    let plan = seal(stages(&shop.rows));
    shop.run(&plan);
    fs::remove_dir_all(shop.folder.path().join("cache")).unwrap();
    let drifts = |job: &Job, folders: &Folders, sink: &dyn Sink, stop: &AtomicBool| {
        if job.kind() == "load" {
            atomic_file::write(&folders.output.join("drift"), b"x").unwrap();
        }
        stand_in(job, folders, sink, stop)
    };
    let (store, events, stop) = (shop.store(), Events::default(), AtomicBool::new(false));
    let report = runner::run(&plan, &shop.settings(&store), &drifts, &events, &stop).unwrap();
    assert!(matches!(report.standing, Some(Standing::NotReproduced(_))));
    assert!(!report.lock_written);
    let [note] = &events.notes()[..] else { panic!("{:?}", events.notes()) };
    assert!(note.contains("left alone") && note.contains("came out differently"), "{note}");
}

#[test]
fn a_changed_recipe_rewrites_it() {
    let mut shop = Workshop::new();
    shop.run(&seal(stages(&shop.rows)));
    shop.environment.insert("machine".to_owned(), "two".to_owned());
    let mut changed = stages(&shop.rows);
    changed[3].job = job("train", &[("/train/model/optim/lr", json!(1e-4))]);
    let report = shop.run(&seal(changed));
    assert_eq!(report.standing, Some(Standing::Changed(vec!["train".to_owned()])));
    assert!(report.lock_written);
}

#[test]
fn one_that_cannot_be_read_stops_the_run_before_any_work() {
    let shop = Workshop::new();
    let version = r#"{"version": 99, "environment": {}, "stages": {}}"#;
    for (text, expected) in [("<<<<<<< HEAD\n{", "expected value"), (version, "version is 99")] {
        overwrite(&shop.lock, text);
        let error = shop.try_run(&seal(stages(&shop.rows)), &Events::default()).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert!(error.to_string().contains("small.lock"), "{error}");
        assert!(!shop.folder.path().join("cache").exists());
    }
}
