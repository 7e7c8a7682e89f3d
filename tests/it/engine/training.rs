//! The loop: validation, checkpoints, stopping, resuming to the bit, errors.

use super::{SEQ_LENGTH, gpt, optimizer, sequence, with_dropout};
use sft_run::base::digest::Digest;
use sft_run::checkpoint::manifest::Progress;
use sft_run::checkpoint::whole;
use sft_run::data::feed::{Feed, Ordering};
use sft_run::data::indexed::{self, Writer};
use sft_run::data::sequences::{Sequence, Sequences};
use sft_run::engine::bench;
use sft_run::engine::training::{Error, Finished, Run, train};
use sft_run::model::weights::start_values;
use sft_run::spec::backend::Backend;
use sft_run::spec::event::{Event, Silent, Sink, StepMetrics, ValidationMetrics};
use sft_run::spec::job::{
    DataSource, Job, LoadJob, LoadModel, LoadStage, TrainData, TrainJob, TrainModel, TrainStage,
    TrainTrainer,
};
use sft_run::spec::optimization::{Degrees, Precision, Recompute, Schedule, ScheduleName};
use sft_run::stages::{self, Folders};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// The made-up sequences from `0` on, on `count` numbers.
struct MadeUp(usize);

impl Sequences for MadeUp {
    fn count(&self) -> usize {
        self.0
    }

    fn sequence(&self, index: usize) -> Result<Sequence, indexed::Error> {
        Ok(sequence(index as u64))
    }
}

fn feed(count: usize, shuffle: bool) -> Feed {
    feed_of(Arc::new(MadeUp(count)), shuffle)
}

pub(super) fn feed_of(sequences: Arc<dyn Sequences>, shuffle: bool) -> Feed {
    let ordering = Ordering { seed: 2, shuffle, seq_length: SEQ_LENGTH };
    Feed::new(vec![(1.0, sequences)], ordering).unwrap()
}

pub(super) fn job() -> TrainJob {
    let mut optim = optimizer();
    optim.sched = Some(Schedule {
        name: ScheduleName::CosineAnnealing,
        warmup_steps: 2,
        constant_steps: 0,
        min_lr: 1e-3,
        max_steps: 9,
    });
    TrainJob {
        model: TrainModel {
            architecture: with_dropout(&gpt()),
            encoder_seq_length: SEQ_LENGTH,
            global_batch_size: 4,
            micro_batch_size: 2,
            seed: 2,
            optim,
            megatron_amp_o2: false,
            recompute: Recompute::None,
            loss_scaling: None,
            frozen: Vec::new(),
            data: TrainData {
                source: DataSource::Shards,
                reset_position_ids: false,
                reset_attention_mask: false,
                eod_mask_loss: false,
                shuffle: true,
            },
        },
        trainer: TrainTrainer {
            max_steps: 9,
            val_check_interval: 3,
            limit_val_batches: Some(1),
            gradient_clip_val: 1.0,
            precision: Precision::Fp32,
            degrees: Degrees::SINGLE,
            log_every_n_steps: 1,
        },
        stage: TrainStage {
            checkpoint_every: 2,
            keep: None,
            validate: None,
            early_stopping: None,
            nemo: None,
        },
    }
}

/// Runs `job` in `folder`, which gets its start weights first if it has none.
pub(super) fn run(
    folder: &Path,
    job: &TrainJob,
    sink: &dyn Sink,
    stop: &AtomicBool,
) -> Result<Finished, Error> {
    run_from(folder, job, None, (sink, stop))
}

/// The same, continuing from the checkpoint `resume` of another run.
pub(super) fn run_from(
    folder: &Path,
    job: &TrainJob,
    resume: Option<&Path>,
    told: (&dyn Sink, &AtomicBool),
) -> Result<Finished, Error> {
    // 10 sequences are not a multiple of the batch: epochs end in the middle of steps.
    let feeds = (feed(10, job.model.data.shuffle), Some(feed(6, false)));
    begun(folder, job, (resume, feeds), told)
}

/// [`run`] with these data for training and validation.
pub(super) fn run_on(
    folder: &Path,
    job: &TrainJob,
    feeds: (Feed, Option<Feed>),
    told: (&dyn Sink, &AtomicBool),
) -> Result<Finished, Error> {
    begun(folder, job, (None, feeds), told)
}

fn begun(
    folder: &Path,
    job: &TrainJob,
    (resume, (data, validation)): (Option<&Path>, (Feed, Option<Feed>)),
    (sink, stop): (&dyn Sink, &AtomicBool),
) -> Result<Finished, Error> {
    let start = folder.join("start");
    if !start.exists() {
        let architecture = &job.model.architecture;
        let model = whole::build(architecture, start_values(architecture, 7)).unwrap();
        whole::save(&start, &model, Progress::default(), None).unwrap();
    }
    let output = folder.join("output");
    std::fs::create_dir_all(&output).unwrap();
    let (start, output, backend) = (start.as_path(), output.as_path(), Backend::Cpu);
    let run = Run {
        job,
        start,
        resume,
        backend,
        output,
        data,
        validation,
        watch: None,
        fault: None,
        nodes: None,
    };
    train(run, sink, stop)
}

/// The lines of metrics.jsonl without the measured speed.
pub(super) fn metrics(folder: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(folder.join("output/metrics.jsonl")).unwrap();
    let lines = text.lines().map(|line| {
        let mut line: serde_json::Value = serde_json::from_str(line).unwrap();
        line.as_object_mut().unwrap().remove("tokens_per_second");
        line
    });
    lines.collect()
}

/// Sets the stop flag when a step is reported.
pub(super) struct StopAt<'a>(pub(super) u64, pub(super) &'a AtomicBool);

impl Sink for StopAt<'_> {
    fn emit(&self, event: Event) {
        if matches!(event, Event::Step(StepMetrics { step, .. }) if step == self.0) {
            self.1.store(true, Relaxed);
        }
    }
}

/// A checkpoint's folder is all that a killed process leaves behind.
pub(super) fn keep_only_what_a_kill_leaves(folder: &Path, job: &TrainJob, steps: u64) {
    let shorter =
        TrainJob { trainer: TrainTrainer { max_steps: 99, ..job.trainer.clone() }, ..job.clone() };
    let stop = AtomicBool::new(false);
    let stopped = run(folder, &shorter, &StopAt(steps, &stop), &stop);
    assert!(matches!(stopped, Err(Error::Stopped { step }) if step == steps));
    // Lines of steps that no checkpoint holds, the last one broken.
    let path = folder.join("output/metrics.jsonl");
    let mut text = std::fs::read_to_string(&path).unwrap();
    text.push_str(
        &text.lines().last().unwrap().replace(&format!("\"step\":{steps}"), "\"step\":98"),
    );
    text.push_str("\n{\"step\":99,\"consu");
    sft_run::base::atomic_file::write(&path, text.as_bytes()).unwrap();
    std::fs::create_dir_all(folder.join("output/resume/step-00000098.partial")).unwrap();
}

#[test]
fn an_interrupted_run_ends_with_the_same_bits() {
    let (whole, cut) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let job = job();
    let stop = AtomicBool::new(false);
    let finished = run(whole.path(), &job, &Silent, &stop).unwrap();
    assert_eq!(finished.progress, Progress { step: 9, consumed_samples: 36 });

    keep_only_what_a_kill_leaves(cut.path(), &job, 5);
    let resumed = run(cut.path(), &job, &Silent, &stop).unwrap();
    assert_eq!(resumed, finished);
    assert_eq!(metrics(cut.path()), metrics(whole.path()));
    let digest = |folder: &Path| Digest::of_folder(&folder.join("output/checkpoint")).unwrap();
    assert_eq!(digest(cut.path()), digest(whole.path()));
    assert!(!cut.path().join("output/resume").exists());

    // A finished output is left as it is.
    let again = run(cut.path(), &job, &Silent, &stop).unwrap();
    assert_eq!(again, finished, "what a finished run reports is read from what it left");
    assert_eq!(digest(cut.path()), digest(whole.path()));
}

#[test]
fn losses_and_validations_are_written_and_fall() {
    let folder = tempfile::tempdir().unwrap();
    let mut job = job();
    job.model.architecture = gpt();
    job.model.optim.sched = None;
    job.trainer.max_steps = 60;
    job.trainer.val_check_interval = 20;
    run(folder.path(), &job, &Silent, &AtomicBool::new(false)).unwrap();
    let lines = metrics(folder.path());
    let validations: Vec<ValidationMetrics> =
        lines.iter().filter_map(|line| serde_json::from_value(line.clone()).ok()).collect();
    assert_eq!(validations.iter().map(|line| line.step).collect::<Vec<_>>(), [20, 40, 60]);
    assert!(validations[2].val_loss < validations[0].val_loss);
    let loss = |line: &serde_json::Value| line["reduced_train_loss"].as_f64();
    let losses: Vec<f64> = lines.iter().filter_map(loss).collect();
    assert_eq!(losses.len(), 60);
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    assert!(mean(&losses[50..]) < 0.5 * mean(&losses[..5]), "{losses:?}");
}

#[test]
fn a_loss_that_is_no_number_ends_the_run_by_its_step() {
    let folder = tempfile::tempdir().unwrap();
    let mut job = job();
    job.model.optim.lr = 1e30;
    job.model.optim.sched = None;
    let error = run(folder.path(), &job, &Silent, &AtomicBool::new(false)).unwrap_err().to_string();
    assert!(error.contains("of step 2 is") || error.contains("of step 3 is"), "{error}");
}

#[test]
fn what_later_versions_do_is_refused_by_its_key() {
    let refused = |change: fn(&mut TrainJob), message: &str| {
        let mut job = job();
        change(&mut job);
        let folder = tempfile::tempdir().unwrap();
        let error = run(folder.path(), &job, &Silent, &AtomicBool::new(false)).unwrap_err();
        assert_eq!(error.to_string(), message);
    };
    refused(
        |job| job.trainer.degrees.pipeline = 4,
        "training of 2 layers on 4 × 1 unequal parts of a pipeline is not built: \
         choose a model.pipeline_model_parallel_size that divides the layers",
    );
    refused(
        |job| job.model.micro_batch_size = 3,
        "a global batch of 4 cannot be cut into micro-batches of 3 on 1 replicas",
    );
}

#[test]
fn a_step_in_which_nothing_is_learned_is_refused() {
    struct Mute;
    impl Sequences for Mute {
        fn count(&self) -> usize {
            4
        }
        fn sequence(&self, index: usize) -> Result<Sequence, indexed::Error> {
            let mut sequence = sequence(index as u64);
            sequence.loss_mask.fill(false);
            Ok(sequence)
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let mut job = job();
    job.trainer.max_steps = 1;
    let (feeds, stop) = ((feed_of(Arc::new(Mute), true), None), AtomicBool::new(false));
    let error = run_on(folder.path(), &job, feeds, (&Silent, &stop)).unwrap_err().to_string();
    assert!(error.starts_with("no token of step 1 is learned"), "{error}");
}

#[test]
fn bench_counts_the_timed_steps_only() {
    let folder = tempfile::tempdir().unwrap();
    let mut job = job();
    job.trainer.max_steps = 3;
    run(folder.path(), &job, &Silent, &AtomicBool::new(false)).unwrap();
    let steps = bench::Steps { warmup: 1, timed: 2 };
    let start = folder.path().join("start");
    let report = bench::run(&job, (Backend::Cpu, &start), &feed(10, true), steps).unwrap();
    let lines = metrics(folder.path());
    let of_steps: Vec<_> = lines.iter().filter(|line| line.get("lr").is_some()).collect();
    let counted = |name: &str| of_steps[1..].iter().map(|line| line[name].as_u64().unwrap()).sum();
    assert_eq!(
        (report.tokens, report.learned_tokens),
        (counted("tokens"), counted("learned_tokens"))
    );
    assert_eq!(report.seconds.len(), 2);
    // The same steps as training's.
    assert_eq!(report.loss, of_steps[2]["reduced_train_loss"].as_f64().unwrap());
}

/// Two Megatron token files: counting up and counting down, an end-of-document token of 0.
fn token_files(folder: &Path) -> BTreeMap<String, PathBuf> {
    let file = |number: usize| {
        let prefix = folder.join(format!("part{number}"));
        let mut writer = Writer::create(&prefix, 29).unwrap();
        for document in 0..12 {
            let count = |at: u32| if number == 0 { 1 + at % 28 } else { 28 - at % 28 };
            let mut ids: Vec<u32> = (document..document + 20).map(count).collect();
            ids.push(0);
            writer.sequence(&ids, &vec![true; ids.len()]).unwrap();
            writer.end_document();
        }
        writer.finish().unwrap();
        (format!("prefix.{number}"), prefix)
    };
    (0..2).map(file).collect()
}

#[test]
fn the_stages_load_and_train_go_from_token_files_to_a_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let stop = AtomicBool::new(false);
    let run = |job: &Job, name: &str, inputs: BTreeMap<String, PathBuf>| {
        let output = folder.path().join(name);
        std::fs::create_dir_all(&output).unwrap();
        stages::run(
            job,
            &Folders { inputs, backend: Backend::Cpu, output: output.clone() },
            &Silent,
            &stop,
        )
        .map(|_| output)
    };
    let load = LoadModel { architecture: gpt(), seed: 3, restore: false, megatron_legacy: false };
    let loaded = run(
        &Job::Load(LoadJob { model: load.clone(), stage: LoadStage::default() }),
        "load",
        BTreeMap::new(),
    )
    .unwrap();

    let mut job = job();
    job.model.architecture = gpt();
    job.model.data.source =
        DataSource::Prefixes { weights: vec![0.7, 0.3], splits: [0.8, 0.2, 0.0] };
    job.model.data.reset_position_ids = true;
    job.model.data.reset_attention_mask = true;
    job.model.data.eod_mask_loss = true;
    let mut inputs = token_files(folder.path());
    inputs.insert("model".to_owned(), loaded);
    let trained = run(&Job::Train(job), "train", inputs).unwrap();

    // What was trained can be loaded again, and is not what training started from.
    let restore = Job::Load(LoadJob {
        model: LoadModel { restore: true, ..load },
        stage: LoadStage::default(),
    });
    let inputs = BTreeMap::from([("checkpoint".to_owned(), trained.clone())]);
    let again = run(&restore, "again", inputs).unwrap();
    let values = |folder: &Path| {
        let model = whole::load_model(folder).unwrap();
        model.weights().values().to_vec1::<f32>().unwrap()
    };
    assert_eq!(values(&again), values(&trained));
    assert_ne!(values(&again), start_values::<f32>(&gpt(), 3));

    let nothing = run(&restore, "nothing", BTreeMap::new()).unwrap_err().to_string();
    assert!(nothing.contains("input `checkpoint` is missing"), "{nothing}");
}
