//! Half precision: it follows fp32, resumes to the bit, and keeps in fp32 what must be.

use super::training::{job, keep_only_what_a_kill_leaves, metrics, run};
use super::{f64_model, gpt, gradients, learn, llama, micro_batch};
use candle_core::{DType, Device, Tensor};
use half::bf16;
use sft_run::base::digest::Digest;
use sft_run::checkpoint::native::Checkpoint;
use sft_run::checkpoint::piecewise::Numbers;
use sft_run::checkpoint::whole::{self, Progress};
use sft_run::engine::state::Begin;
use sft_run::engine::training;
use sft_run::kernels::masters;
use sft_run::model::Model;
use sft_run::model::formats::Formats;
use sft_run::model::weights::{Weights, start_values};
use sft_run::parallel::mesh::Mesh;
use sft_run::parallel::ranks;
use sft_run::spec::architecture::Architecture;
use sft_run::spec::event::Silent;
use sft_run::spec::job::TrainJob;
use sft_run::spec::optimization::{Degrees, LossScaling, OptimizerName, Precision};
use std::path::Path;
use std::sync::atomic::AtomicBool;

/// The half-precision schemes: format, and whether with fp32 masters.
const SCHEMES: [(Precision, bool); 4] = [
    (Precision::Bf16, true),
    (Precision::Bf16, false),
    (Precision::Fp16, true),
    (Precision::Fp16, false),
];

/// Moves within a few steps.
const SCALING: LossScaling =
    LossScaling { native_amp_init_scale: 65536.0, native_amp_growth_interval: 2, hysteresis: 1 };

fn in_precision(precision: Precision, amp_o2: bool) -> TrainJob {
    let mut job = job();
    job.trainer.precision = precision;
    job.model.megatron_amp_o2 = amp_o2;
    job.model.loss_scaling = (precision == Precision::Fp16).then_some(SCALING);
    job
}

fn losses(job: &TrainJob) -> Vec<f64> {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), job, &Silent, &AtomicBool::new(false)).unwrap();
    let lines = metrics(folder.path());
    lines.iter().filter_map(|line| line["reduced_train_loss"].as_f64()).collect()
}

#[test]
fn losses_follow_those_of_fp32() {
    let longer = |precision, amp_o2| {
        let mut job = in_precision(precision, amp_o2);
        job.model.optim.sched = None;
        job.trainer.max_steps = 40;
        // No step overflows, or the runs would drift apart.
        let steady = |scaling| LossScaling { native_amp_growth_interval: 1000, ..scaling };
        job.model.loss_scaling = job.model.loss_scaling.map(steady);
        losses(&job)
    };
    let expected = longer(Precision::Fp32, false);
    for (precision, amp_o2) in SCHEMES {
        let found = longer(precision, amp_o2);
        assert_eq!(found.len(), expected.len());
        assert_ne!(found, expected);
        for (step, (found, expected)) in found.iter().zip(&expected).enumerate() {
            let error = (found - expected).abs() / expected;
            assert!(error < 0.03, "{precision:?} {amp_o2}, step {step}: {found} and {expected}");
        }
    }
}

#[test]
fn an_interrupted_run_ends_with_the_same_bits() {
    for (precision, amp_o2) in SCHEMES {
        let (whole, cut) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let job = in_precision(precision, amp_o2);
        let stop = AtomicBool::new(false);
        let finished = run(whole.path(), &job, &Silent, &stop).unwrap();
        keep_only_what_a_kill_leaves(cut.path(), &job, 5);
        assert_eq!(run(cut.path(), &job, &Silent, &stop).unwrap(), finished);
        assert_eq!(metrics(cut.path()), metrics(whole.path()));
        let digest = |folder: &Path| Digest::of_folder(&folder.join("output/checkpoint"));
        assert_eq!(digest(cut.path()).unwrap(), digest(whole.path()).unwrap());
    }
}

#[test]
fn masters_keep_what_half_precision_would_lose() {
    // Updates far smaller than the distance between neighbouring bf16 numbers add up.
    let folder = tempfile::tempdir().unwrap();
    let mut job = in_precision(Precision::Bf16, true);
    job.model.optim.sched = None;
    job.model.optim.lr = 1e-6;
    run(folder.path(), &job, &Silent, &AtomicBool::new(false)).unwrap();
    let start = start_values::<f32>(&job.model.architecture, 7);
    let saved = whole::load_model(&folder.path().join("output/checkpoint")).unwrap();
    let saved: Vec<f32> = saved.weights().values().to_vec1().unwrap();
    let moved = start.iter().zip(&saved).filter(|(start, saved)| start != saved).count();
    assert!(moved > start.len() / 2, "{moved} of {} parameters moved", start.len());
    // What goes on from there computes with the rounded parameters and keeps the others.
    let begin = Begin::going_on(&job, &folder.path().join("output/checkpoint")).unwrap();
    let trainer = begin.trainer(&job, &Mesh::single()).unwrap();
    let weights = trainer.model.weights();
    let masters = trainer.optimizer.masters(weights).unwrap();
    assert_eq!(masters.on_host(&(0..saved.len())).unwrap(), saved);
    let saved = Tensor::new(saved, &Device::Cpu).unwrap();
    let rounded = masters::rounded(&saved, DType::BF16).unwrap();
    let wide = |tensor: &Tensor| tensor.to_dtype(DType::F32).unwrap().to_vec1::<f32>().unwrap();
    assert_eq!(weights.values().dtype(), DType::BF16);
    assert_eq!(wide(weights.values()), wide(&rounded));
}

/// bf16 with masters on `degrees`, from a start in `folder` of which a third are ties between two bf16
/// numbers.
fn from_ties(folder: &Path, degrees: Degrees, name: OptimizerName) -> TrainJob {
    let mut job = in_precision(Precision::Bf16, true);
    (job.trainer.degrees, job.model.optim.name) = (degrees, name);
    // The norm, by which gradients would be clipped, is added up in another order by each optimizer.
    job.trainer.gradient_clip_val = 0.0;
    let mut start = start_values::<f32>(&job.model.architecture, 7);
    for value in start.iter_mut().step_by(3) {
        *value = f32::from_bits(value.to_bits() & 0xffff_0000 | 0x8000);
    }
    if !folder.join("start").exists() {
        let model = whole::build(&job.model.architecture, start).unwrap();
        whole::save(&folder.join("start"), &model, Progress::default(), None).unwrap();
    }
    job
}

/// Parameters and moments of the checkpoint at `path`, as bits.
fn state(path: &Path, job: &TrainJob) -> [Vec<u32>; 3] {
    let (checkpoint, architecture) = (Checkpoint::open(path).unwrap(), &job.model.architecture);
    let values = whole::read_weights(&checkpoint, architecture).unwrap();
    let [first, second] = whole::read_moments(&checkpoint, architecture).unwrap();
    [values, first, second].map(|all| all.into_iter().map(f32::to_bits).collect())
}

#[test]
fn bf16_goes_on_with_the_same_bits_whether_the_state_is_split_or_not() {
    let degrees = Degrees { data: 2, ..Degrees::SINGLE };
    let names = [OptimizerName::Adamw, OptimizerName::DistributedFusedAdam];
    let (whole, stop) = (tempfile::tempdir().unwrap(), AtomicBool::new(false));
    let job = from_ties(whole.path(), degrees, names[0]);
    run(whole.path(), &job, &Silent, &stop).unwrap();
    let expected = state(&whole.path().join("output/checkpoint"), &job);
    for (before, after) in [(0, 1), (1, 0), (1, 1)] {
        let cut = tempfile::tempdir().unwrap();
        let first = from_ties(cut.path(), degrees, names[before]);
        keep_only_what_a_kill_leaves(cut.path(), &first, 5);
        let second = from_ties(cut.path(), degrees, names[after]);
        run(cut.path(), &second, &Silent, &stop).unwrap();
        let found = state(&cut.path().join("output/checkpoint"), &job);
        assert!(found == expected, "{before} {after}");
    }
}

/// However ranks share them, the masters that a rank begins with are the values of the checkpoint, and
/// what it computes with are these, rounded, those of other ranks' optimizers too.
#[test]
fn masters_are_the_values_of_the_checkpoint_at_every_layout() {
    let folder = tempfile::tempdir().unwrap();
    let name = OptimizerName::DistributedFusedAdam;
    for (data, tensor, pipeline) in [(1, 1, 1), (4, 1, 1), (2, 2, 1), (2, 1, 2)] {
        let degrees = Degrees { data, tensor, pipeline, ..Degrees::SINGLE };
        let job = from_ties(folder.path(), degrees, name);
        let begin = Begin::at(&job, &folder.path().join("start")).unwrap();
        let checkpoint = Checkpoint::open(&folder.path().join("start")).unwrap();
        let all = whole::read_weights(&checkpoint, &job.model.architecture).unwrap();
        ranks::run(&degrees, |mesh| {
            let trainer = begin.trainer(&job, &mesh)?;
            let (weights, owned) = (trainer.model.weights(), trainer.optimizer.owned());
            let here = weights.holding().cut(&all);
            let mine: Vec<f32> =
                owned.iter().flat_map(|range| here[range.clone()].to_vec()).collect();
            let masters = trainer.optimizer.masters(weights).unwrap();
            assert!(masters.on_host(&(0..mine.len())).unwrap() == mine);
            assert!(masters.on_host(&(7..mine.len() - 3)).unwrap() == mine[7..mine.len() - 3]);
            let here = Tensor::new(here, &Device::Cpu)?;
            let rounded = masters::rounded(&here, DType::BF16)?;
            assert!(rounded.to_vec1::<bf16>()? == weights.values().to_vec1::<bf16>()?);
            Ok::<_, training::Error>(())
        })
        .unwrap();
    }
}

/// The model of [`f64_model`] in other formats.
fn model(architecture: &Architecture, formats: Formats) -> Model {
    let values = f64_model(architecture).weights().values().to_dtype(DType::F32).unwrap();
    let weights = Weights::placed(architecture, &values, formats, &Device::Cpu).unwrap();
    Model::new(architecture, weights).unwrap()
}

#[test]
fn gradients_are_those_of_fp32_to_within_the_format() {
    for architecture in [gpt(), llama()] {
        let exact = f64_model(&architecture);
        let expected_loss = learn(&exact, &micro_batch(0..3));
        let expected = gradients(&exact);
        let norm = expected.iter().map(|value| value * value).sum::<f64>().sqrt();
        // Rounding errors of 2^-9 and 2^-12 each, gathered over two blocks.
        let formats = [(Precision::Bf16, 2e-2), (Precision::Fp16, 3e-3)];
        for ((precision, tolerance), amp_o2) in
            formats.into_iter().flat_map(|format| [(format, true), (format, false)])
        {
            let half = model(&architecture, Formats::of(precision, amp_o2));
            let loss = learn(&half, &micro_batch(0..3));
            assert!((loss / expected_loss - 1.0).abs() < tolerance, "{loss} and {expected_loss}");
            assert_eq!(half.weights().gradients().dtype(), DType::F32);
            let gradients: Vec<f32> = half.weights().gradients().to_vec1().unwrap();
            let squares = gradients.iter().zip(&expected).map(|(a, b)| (f64::from(*a) - b).powi(2));
            let error = squares.sum::<f64>().sqrt() / norm;
            assert!(error < tolerance, "{precision:?} {amp_o2}: {error:.1e}");
            assert!(error > tolerance / 100.0, "{precision:?} {amp_o2}: {error:.1e}, not half");
        }
    }
}

/// `metrics.jsonl`'s steps: (loss scale, gradient norm, learning rate).
fn steps(folder: &Path) -> Vec<(f64, Option<f64>, f64)> {
    let lines = metrics(folder);
    let steps = lines.iter().filter(|line| line.get("lr").is_some());
    let number = |line: &serde_json::Value, name: &str| line[name].as_f64();
    let step = |line| {
        let scale = number(line, "loss_scale").unwrap();
        (scale, number(line, "grad_norm"), number(line, "lr").unwrap())
    };
    steps.map(step).collect()
}

#[test]
fn overflowing_steps_are_skipped_and_count_for_nothing_but_the_data() {
    let (folder, cut) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut job = in_precision(Precision::Fp16, true);
    job.trainer.max_steps = 12;
    // Far too high: the scale has to come down before anything is learned.
    let native_amp_init_scale = 2.0_f64.powi(26);
    let scaling = LossScaling { native_amp_init_scale, hysteresis: 2, ..SCALING };
    job.model.loss_scaling = Some(scaling);
    let stop = AtomicBool::new(false);
    let finished = run(folder.path(), &job, &Silent, &stop).unwrap();
    let found = steps(folder.path());
    let skipped = found.iter().take_while(|(_, norm, _)| norm.is_none()).count();
    assert!((3..9).contains(&skipped), "{found:?}");
    // The first overflow is forgiven, each further one halves.
    for (step, (scale, ..)) in found[..=skipped].iter().enumerate() {
        let halvings = i32::try_from(step.saturating_sub(1)).unwrap();
        assert_eq!(*scale, native_amp_init_scale * 0.5_f64.powi(halvings));
    }
    // The schedule waits for the first step that counts.
    let rates: Vec<f64> = found.iter().map(|(.., rate)| *rate).collect();
    assert!(rates[..=skipped].iter().all(|rate| *rate == rates[0]));
    assert!(rates[skipped + 1] > rates[0]);
    let begin = Begin::going_on(&job, &folder.path().join("output/checkpoint")).unwrap();
    let (done, progress) = (begin.trainer(&job, &Mesh::single()).unwrap(), begin.progress);
    let all = found.iter().filter(|(_, norm, _)| norm.is_none()).count() as u64;
    assert_eq!(done.loss_scale().unwrap().skipped_steps, all);
    assert_eq!((progress.step, progress.consumed_samples), (12, 48));

    // Cut in the middle of the skipped steps.
    keep_only_what_a_kill_leaves(cut.path(), &job, 3);
    assert_eq!(run(cut.path(), &job, &Silent, &stop).unwrap(), finished);
    assert_eq!(metrics(cut.path()), metrics(folder.path()));
}
