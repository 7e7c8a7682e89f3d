//! What a killed or damaged run goes on from.

use super::training::{StopAt, job, metrics, run};
use sft_run::base::atomic_file;
use sft_run::base::digest::Digest;
use sft_run::checkpoint::manifest::Header;
use sft_run::checkpoint::native::Checkpoint;
use sft_run::checkpoint::reshard::reshard;
use sft_run::engine::training::Error;
use sft_run::spec::event::{Event, Silent, Sink};
use sft_run::spec::job::{Keep, Monitor};
use sft_run::spec::optimization::Degrees;
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

/// Keeps notes and the steps of resumptions and saved checkpoints.
#[derive(Debug, Default)]
struct Heard(Mutex<Vec<String>>);

impl Sink for Heard {
    fn emit(&self, event: Event) {
        let text = match event {
            Event::Note { text } => text,
            Event::Resumed { step } => format!("resumed {step}"),
            Event::Saved { step, pause, seconds, bytes } => {
                assert!(pause <= seconds && bytes > 1000);
                format!("saved {step}")
            }
            _ => return,
        };
        self.0.lock().unwrap().push(text);
    }
}

impl Heard {
    fn all(self) -> Vec<String> {
        self.0.into_inner().unwrap()
    }
}

fn result(folder: &Path) -> Digest {
    Digest::of_folder(&folder.join("output/checkpoint")).unwrap()
}

/// A run of the job that stopped after step 5, with checkpoints of steps 4 and 5.
fn stopped() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let stop = AtomicBool::new(false);
    let stopped = run(folder.path(), &job(), &StopAt(5, &stop), &stop);
    assert!(matches!(stopped, Err(Error::Stopped { step: 5 })));
    let mut names: Vec<_> = fs::read_dir(folder.path().join("output/resume"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["step-00000004", "step-00000005"]);
    folder
}

#[test]
fn a_damaged_checkpoint_is_named_and_the_one_before_is_used() {
    let whole = tempfile::tempdir().unwrap();
    let never = AtomicBool::new(false);
    let heard = Heard::default();
    run(whole.path(), &job(), &heard, &never).unwrap();
    assert_eq!(heard.all(), ["saved 2", "saved 4", "saved 6", "saved 8", "saved 9"]);

    let check = |damage: fn(&Path), message: &str| {
        let folder = stopped();
        damage(&folder.path().join("output/resume/step-00000005"));
        let heard = Heard::default();
        run(folder.path(), &job(), &heard, &never).unwrap();
        let heard = heard.all();
        assert!(heard[0].contains(message) && heard[0].contains("step-00000005"), "{heard:?}");
        assert!(heard[0].ends_with("trying the one before, step-00000004"), "{heard:?}");
        assert_eq!(heard[1], "resumed 4");
        assert_eq!(result(folder.path()), result(whole.path()));
        assert_eq!(metrics(folder.path()), metrics(whole.path()));
    };
    check(
        |path| {
            let path = path.join("model-00000.safetensors");
            let mut bytes = fs::read(&path).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 4;
            atomic_file::write(&path, &bytes).unwrap();
        },
        "its hash differs",
    );
    check(
        |path| {
            let path = path.join("optimizer-00000.safetensors");
            let bytes = fs::read(&path).unwrap();
            atomic_file::write(&path, &bytes[..bytes.len() / 3]).unwrap();
        },
        "optimizer-00000.safetensors is damaged",
    );
    check(
        |path| fs::remove_file(path.join("optimizer-00000.safetensors")).unwrap(),
        "optimizer-00000.safetensors is missing",
    );
    check(
        |path| fs::remove_file(path.join("manifest.json")).unwrap(),
        "is not a checkpoint of sft-run",
    );
}

#[test]
fn a_checkpoint_of_another_layout_goes_on_to_the_same_bits() {
    let whole = tempfile::tempdir().unwrap();
    let never = AtomicBool::new(false);
    run(whole.path(), &job(), &Silent, &never).unwrap();
    let folder = stopped();
    let path = folder.path().join("output/resume/step-00000005");
    let cut = folder.path().join("cut");
    {
        let checkpoint = Checkpoint::open(&path).unwrap();
        let header = checkpoint.manifest().header.clone();
        let layout = Degrees { tensor: 2, pipeline: 2, data: 2, ..Degrees::SINGLE };
        reshard(&checkpoint, &cut, Header { layout, ..header }, &mut |_, _| {}).unwrap();
    }
    fs::remove_dir_all(&path).unwrap();
    fs::rename(&cut, &path).unwrap();
    assert!(path.join("optimizer-00007.safetensors").is_file());
    let heard = Heard::default();
    run(folder.path(), &job(), &heard, &never).unwrap();
    assert_eq!(heard.all()[0], "resumed 5");
    assert_eq!(result(folder.path()), result(whole.path()));
    assert_eq!(metrics(folder.path()), metrics(whole.path()));
}

#[test]
fn without_a_whole_checkpoint_training_starts_over() {
    let (whole, folder) = (tempfile::tempdir().unwrap(), stopped());
    let never = AtomicBool::new(false);
    run(whole.path(), &job(), &Silent, &never).unwrap();
    for step in [4, 5] {
        let name = format!("output/resume/step-{step:08}/manifest.json");
        fs::remove_file(folder.path().join(name)).unwrap();
    }
    let heard = Heard::default();
    run(folder.path(), &job(), &heard, &never).unwrap();
    let heard = heard.all();
    assert!(heard[1].ends_with("there is none before it: training starts over"), "{heard:?}");
    assert_eq!(result(folder.path()), result(whole.path()));
}

#[test]
fn other_data_than_the_checkpoint_was_to_go_on_with_is_refused() {
    let folder = stopped();
    let mut other = job();
    other.model.data.shuffle = false;
    let never = AtomicBool::new(false);
    let error = run(folder.path(), &other, &Silent, &never).unwrap_err();
    assert!(error.to_string().starts_with("the data of step 6 is not what"), "{error}");
}

/// Names in the folder of kept checkpoints.
fn kept(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder.join("output/kept")).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn the_best_checkpoints_are_kept_through_an_interruption() {
    let mut job = job();
    job.stage.keep = Some(Keep {
        save_top_k: 2,
        monitor: Monitor::ReducedTrainLoss,
        more_is_better: false,
        filename: "{reduced_train_loss:.3f}-{step}-{consumed_samples:.1f}".to_owned(),
        save_best_model: true,
    });
    let (whole, cut) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let never = AtomicBool::new(false);
    run(whole.path(), &job, &Silent, &never).unwrap();
    // Steps 2, 4, 6, 8 and the last, 9, are saved; the losses at them stand in the journal.
    let mut losses: Vec<(f64, u64)> = metrics(whole.path())
        .iter()
        .filter_map(|line| {
            let step = line["step"].as_u64().unwrap();
            let saved = step.is_multiple_of(2) || step == 9;
            Some((line["reduced_train_loss"].as_f64().filter(|_| saved)?, step))
        })
        .collect();
    losses.sort_by(|one, two| one.0.total_cmp(&two.0));
    let name = |(loss, step): &(f64, u64)| {
        format!("reduced_train_loss={loss:.3}-step={step}-consumed_samples={}.0", step * 4)
    };
    let mut expected: Vec<String> = losses[..2].iter().map(name).collect();
    expected.sort();
    assert_eq!(kept(whole.path()), expected);
    let best = whole.path().join("output/kept").join(name(&losses[0]));
    assert_eq!(Digest::of_folder(&best).unwrap(), result(whole.path()));

    let stop = AtomicBool::new(false);
    let stopped = run(cut.path(), &job, &StopAt(4, &stop), &stop);
    assert!(matches!(stopped, Err(Error::Stopped { step: 4 })));
    // As if the kill had come before the checkpoint of step 4 was kept.
    let second = kept(cut.path()).into_iter().find(|name| name.contains("step=4")).unwrap();
    fs::remove_dir_all(cut.path().join("output/kept").join(second)).unwrap();
    run(cut.path(), &job, &Silent, &never).unwrap();
    let all = |folder: &Path| Digest::of_folder(&folder.join("output/kept")).unwrap();
    assert_eq!(kept(cut.path()), expected);
    assert_eq!((all(cut.path()), result(cut.path())), (all(whole.path()), result(whole.path())));
}
