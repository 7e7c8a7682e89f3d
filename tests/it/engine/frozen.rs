//! Frozen parameters: they keep their bits and have no state, the others learn as if nothing were
//! frozen, at every layout.

use super::training::{job, keep_only_what_a_kill_leaves, metrics, run};
use sft_run::base::digest::Digest;
use sft_run::checkpoint::manifest::Kind;
use sft_run::checkpoint::native::Checkpoint;
use sft_run::checkpoint::whole;
use sft_run::layout::frozen;
use sft_run::layout::parameters::{Parameter, table};
use sft_run::spec::event::Silent;
use sft_run::spec::job::TrainJob;
use sft_run::spec::optimization::{Degrees, OptimizerName, Precision};
use std::path::Path;
use std::sync::atomic::AtomicBool;

/// The first of two blocks, an embedding, and every bias of the second block's attention.
fn patterns() -> Vec<String> {
    let written =
        [&frozen::layer(0), "embedding.position*", "encoder.layers.1.self_attention.*.bias"];
    written.map(str::to_owned).into()
}

fn freezing(mut job: TrainJob) -> TrainJob {
    job.model.frozen = patterns();
    job
}

/// Each parameter with its values in the checkpoint `name` of `folder`.
fn weights(folder: &Path, name: &str, job: &TrainJob) -> Vec<(Parameter, Vec<f32>)> {
    let model = whole::load_model(&folder.join(name)).unwrap();
    let values: Vec<f32> = model.weights().values().to_vec1().unwrap();
    let mut rest = values.as_slice();
    let cut = |parameter: Parameter| {
        let (own, after) = rest.split_at(parameter.element_count());
        rest = after;
        (parameter, own.to_vec())
    };
    table(&job.model.architecture).into_iter().map(cut).collect()
}

/// Frozen parameters have the bits of the start, all others are changed; only these have moments.
fn check(folder: &Path, job: &TrainJob) {
    let checkpoint = Checkpoint::open(&folder.join("output/checkpoint")).unwrap();
    let tensors = &checkpoint.manifest().tensors;
    let (before, after) =
        (weights(folder, "start", job), weights(folder, "output/checkpoint", job));
    let mut counts = [0, 0];
    for ((parameter, before), (_, after)) in before.iter().zip(&after) {
        let learns = !frozen::names(&patterns(), &parameter.name);
        counts[usize::from(learns)] += 1;
        assert_eq!(before != after, learns, "{}", parameter.name);
        for kind in [Kind::FirstMoment, Kind::SecondMoment] {
            let name = kind.name(&parameter.name);
            assert_eq!(tensors.contains_key(&name), learns, "{name}");
        }
    }
    assert!(counts.iter().all(|count| *count > 5), "{counts:?}");
}

fn layouts() -> Vec<TrainJob> {
    let fused = OptimizerName::DistributedFusedAdam;
    let layout = |data, tensor, pipeline, sequence, name| {
        let mut job = freezing(job());
        job.trainer.degrees = Degrees { data, tensor, pipeline, sequence, ..Degrees::SINGLE };
        job.model.optim.name = name;
        job
    };
    vec![
        layout(2, 2, 1, true, fused),
        layout(1, 2, 2, false, OptimizerName::Adamw),
        layout(3, 1, 2, false, fused),
    ]
}

#[test]
fn frozen_parameters_keep_their_bits_and_have_no_state_at_every_layout() {
    let stop = AtomicBool::new(false);
    let single = tempfile::tempdir().unwrap();
    run(single.path(), &freezing(job()), &Silent, &stop).unwrap();
    check(single.path(), &freezing(job()));
    let mut jobs = layouts();
    for job in &mut jobs {
        if job.trainer.degrees.data == 3 {
            (job.model.global_batch_size, job.model.micro_batch_size) = (6, 1);
        }
        let folder = tempfile::tempdir().unwrap();
        run(folder.path(), job, &Silent, &stop).unwrap();
        check(folder.path(), job);
        if job.trainer.degrees.data == 3 {
            continue;
        }
        for (one, other) in metrics(single.path()).iter().zip(metrics(folder.path())) {
            for key in ["reduced_train_loss", "grad_norm"] {
                let (one, other) = (one[key].as_f64(), other[key].as_f64());
                let (one, other) = (one.unwrap_or_default(), other.unwrap_or_default());
                assert!((one - other).abs() <= 1e-4 * one.abs(), "{key}: {one} and {other}");
            }
        }
    }
}

/// Of half-precision parameters it is the fp32 original that is saved, frozen or not.
#[test]
fn frozen_parameters_keep_their_fp32_bits_beside_bf16() {
    let mut job = freezing(job());
    (job.trainer.precision, job.model.megatron_amp_o2) = (Precision::Bf16, true);
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), &job, &Silent, &AtomicBool::new(false)).unwrap();
    check(folder.path(), &job);
}

/// Gradients of a first step do not depend on what is frozen.
#[test]
fn the_others_learn_as_if_nothing_were_frozen() {
    let stop = AtomicBool::new(false);
    let after = |mut job: TrainJob| {
        (job.trainer.max_steps, job.trainer.gradient_clip_val) = (1, 0.0);
        let folder = tempfile::tempdir().unwrap();
        run(folder.path(), &job, &Silent, &stop).unwrap();
        weights(folder.path(), "output/checkpoint", &job)
    };
    let (all, some) = (after(job()), after(freezing(job())));
    for ((parameter, all), (_, some)) in all.iter().zip(&some) {
        let learns = !frozen::names(&patterns(), &parameter.name);
        assert_eq!(all == some, learns, "{}", parameter.name);
    }
}

#[test]
fn an_interrupted_run_with_frozen_parameters_ends_with_the_same_bits() {
    let stop = AtomicBool::new(false);
    let job = &layouts()[0];
    let (whole, cut) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    run(whole.path(), job, &Silent, &stop).unwrap();
    keep_only_what_a_kill_leaves(cut.path(), job, 5);
    run(cut.path(), job, &Silent, &stop).unwrap();
    let digest = |folder: &Path| Digest::of_folder(&folder.join("output/checkpoint")).unwrap();
    assert_eq!(digest(cut.path()), digest(whole.path()));
}
