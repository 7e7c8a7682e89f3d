//! Several processes on one cache, and one that is killed in the middle.

use super::fixture::*;
use sft_run::artifacts::{Claim, Store};
use sft_run::runner::{self, Settings};
use sft_run::spec::event::Sink;
use sft_run::spec::job::Job;
use sft_run::stages::Folders;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

/// The folder in which a child process of these tests works.
const FOLDER: &str = "SFT_TEST_FOLDER";
/// Makes the child's train stage stop for good in the middle of its work.
const HANGS: &str = "SFT_TEST_HANGS";

/// Not a test: what the child processes do. It runs the plan over the rows in its folder; every
/// stage adds its kind to `log`.
#[test]
#[ignore = "runs inside the child processes of the tests below"]
fn child() {
    let folder = std::env::var_os(FOLDER).unwrap();
    let folder = Path::new(&folder);
    let hangs = std::env::var_os(HANGS).is_some();
    let store = Store::open(&folder.join("cache"));
    let lock = folder.join("small.lock");
    let settings = Settings::new(&store, &lock);
    let slow = |job: &Job, folders: &Folders, sink: &dyn Sink, stop: &AtomicBool| {
        let name = format!("{}-{}", job.kind(), std::process::id());
        overwrite(&folder.join("log").join(name), "");
        let half = folders.output.join("half");
        if job.kind() == "train" && hangs {
            overwrite(&half, "half");
            overwrite(&folder.join("hangs"), "");
            thread::sleep(Duration::from_mins(1));
        }
        thread::sleep(Duration::from_millis(30));
        stand_in(job, folders, sink, stop)
    };
    let plan = seal(stages(&folder.join("rows.jsonl")));
    let stop = AtomicBool::new(false);
    runner::run(&plan, &settings, &slow, &Events::default(), &stop).unwrap();
}

fn start(shop: &Workshop, hangs: bool) -> Child {
    fs::create_dir_all(shop.folder.path().join("log")).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["plan::processes::child", "--exact", "--ignored"]);
    command.env(FOLDER, shop.folder.path()).stdout(Stdio::null()).stderr(Stdio::null());
    if hangs {
        command.env(HANGS, "1");
    }
    command.spawn().unwrap()
}

fn wait_for(path: &Path) {
    let started = Instant::now();
    while !path.exists() {
        assert!(started.elapsed() < Duration::from_secs(30), "{} did not appear", path.display());
        thread::sleep(Duration::from_millis(5));
    }
}

fn log(shop: &Workshop) -> Vec<String> {
    let names = fs::read_dir(shop.folder.path().join("log")).unwrap();
    let mut names: Vec<_> =
        names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn two_processes_share_the_work_of_one() {
    let shop = Workshop::new();
    let mut children = [start(&shop, false), start(&shop, false), start(&shop, false)];
    for child in &mut children {
        assert!(child.wait().unwrap().success());
    }
    let mut kinds: Vec<_> =
        log(&shop).iter().map(|name| name.split('-').next().unwrap().to_owned()).collect();
    kinds.dedup();
    assert_eq!(kinds, ["evaluate", "generate", "load", "shard", "tokenize", "train"]);
    assert_eq!(log(&shop).len(), 6, "a stage ran twice: {:?}", log(&shop));
    assert_eq!(up_to_date(&shop.run(&seal(stages(&shop.rows)))).len(), 6);
}

#[test]
fn a_killed_process_leaves_no_lock_and_nothing_that_looks_finished() {
    let shop = Workshop::new();
    let mut child = start(&shop, true);
    wait_for(&shop.folder.path().join("hangs"));
    let plan = seal(stages(&shop.rows));
    let store = shop.store();
    let partial = fs::read_dir(store.root().join("partial")).unwrap().next().unwrap().unwrap();
    let name = partial.file_name().into_string().unwrap().try_into().unwrap();
    // While it lives, others read who holds the work.
    let holder = format!("process {}", child.id());
    let claim = store.claim(name, "the test").unwrap();
    assert!(matches!(claim, Claim::Theirs(theirs) if theirs == holder));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!store.root().join("train").exists());
    assert!(!shop.lock.exists());
    assert!(shop.preview(&plan).runs("train"));
    // The next run takes the lock at once and continues what lies there.
    let report = shop.run(&plan);
    assert_eq!(ran(&report), ["train", "evaluate", "generate"]);
    assert!(artifact(&report, "train").output.join("half").exists());
}
