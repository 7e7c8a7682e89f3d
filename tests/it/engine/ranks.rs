//! The training loop over several ranks: the numbers and weights of one, resuming on another layout,
//! and how the run ends when a rank fails.

use super::sequence;
use super::training::{feed_of, job, keep_only_what_a_kill_leaves, metrics, run, run_from, run_on};
use sft_run::base::digest::Digest;
use sft_run::checkpoint::whole;
use sft_run::data::indexed;
use sft_run::data::sequences::{Sequence, Sequences};
use sft_run::engine::training::Error;
use sft_run::parallel::ranks::Cause;
use sft_run::spec::event::Silent;
use sft_run::spec::job::TrainJob;
use sft_run::spec::optimization::{Degrees, OptimizerName};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// The job on `data` × `tensor` ranks.
fn on(data: usize, tensor: usize, sequence: bool, optimizer: OptimizerName) -> TrainJob {
    let mut job = job();
    job.trainer.degrees = Degrees { data, tensor, sequence, ..Degrees::SINGLE };
    job.model.optim.name = optimizer;
    job
}

fn weights(folder: &Path) -> Vec<f32> {
    let model = whole::load_model(&folder.join("output/checkpoint")).unwrap();
    model.weights().values().to_vec1().unwrap()
}

/// Every number of the journals is the same to 1e-4, and so are the weights but those whose gradients
/// are nothing but rounding (biases of keys, which the softmax cancels), as AdamW's steps have the
/// same size for any gradient.
fn agree(one: &Path, other: &Path) {
    let (one_lines, other_lines) = (metrics(one), metrics(other));
    assert_eq!(one_lines.len(), other_lines.len());
    for (one, other) in one_lines.iter().zip(&other_lines) {
        for (key, value) in one.as_object().unwrap() {
            let (one, other) = (value.as_f64().unwrap(), other[key].as_f64().unwrap());
            assert!((one - other).abs() <= 1e-4 * one.abs(), "{key}: {one} and {other}");
        }
    }
    let (one, other) = (weights(one), weights(other));
    assert_eq!(one.len(), other.len());
    let apart = one.iter().zip(&other).filter(|(one, other)| (*one - *other).abs() > 1e-4).count();
    assert!(apart < one.len() / 50, "{apart} of {} weights differ", one.len());
}

#[test]
fn several_ranks_write_the_journal_and_the_weights_of_one() {
    let single = tempfile::tempdir().unwrap();
    let stop = AtomicBool::new(false);
    let expected = run(single.path(), &job(), &Silent, &stop).unwrap();
    let fused = OptimizerName::DistributedFusedAdam;
    for (data, tensor, sequence, optimizer) in
        [(2, 2, true, fused), (1, 4, false, OptimizerName::Adamw), (2, 1, false, fused)]
    {
        let folder = tempfile::tempdir().unwrap();
        let job = on(data, tensor, sequence, optimizer);
        let finished = run(folder.path(), &job, &Silent, &stop).unwrap();
        assert_eq!(finished.progress, expected.progress);
        agree(single.path(), folder.path());
    }
}

#[test]
fn an_interrupted_run_goes_on_with_the_same_bits_or_on_another_layout() {
    let fused = OptimizerName::DistributedFusedAdam;
    let jobs = [on(2, 2, true, fused), on(1, 2, false, OptimizerName::Adamw)];
    let whole = tempfile::tempdir().unwrap();
    let stop = AtomicBool::new(false);
    run(whole.path(), &jobs[0], &Silent, &stop).unwrap();
    for (at, job) in jobs.iter().enumerate() {
        let cut = tempfile::tempdir().unwrap();
        keep_only_what_a_kill_leaves(cut.path(), &jobs[0], 5);
        run(cut.path(), job, &Silent, &stop).unwrap();
        agree(whole.path(), cut.path());
        if at == 0 {
            let digest = |folder: &Path| Digest::of_folder(&folder.join("output/checkpoint"));
            assert_eq!(digest(cut.path()).unwrap(), digest(whole.path()).unwrap());
        }
    }
}

/// Trained 20 steps at TP 2 × PP 2 × DP 2, gone on with at TP 1 × PP 4 × DP 1 and at TP 4: the losses
/// and gradient norms of the next ten are those of the run that was not interrupted.
#[test]
fn twenty_steps_on_eight_ranks_go_on_over_four_others_as_if_nothing_had_happened() {
    let at = |tensor, pipeline, data, optimizer| {
        let mut job = on(data, tensor, false, optimizer);
        job.trainer.degrees.pipeline = pipeline;
        job.model.architecture.num_layers = 4;
        job.model.micro_batch_size = 1;
        job.model.optim.sched.as_mut().unwrap().max_steps = 30;
        job.trainer.max_steps = 30;
        job
    };
    let first = at(2, 2, 2, OptimizerName::DistributedFusedAdam);
    let whole = tempfile::tempdir().unwrap();
    let stop = AtomicBool::new(false);
    run(whole.path(), &first, &Silent, &stop).unwrap();
    let later = |folder: &Path| -> Vec<[f64; 3]> {
        let numbers = |line: serde_json::Value| {
            let number = |key: &str| line[key].as_f64();
            Some([number("step")?, number("reduced_train_loss")?, number("grad_norm")?])
        };
        let lines = metrics(folder).into_iter().filter_map(numbers);
        lines.filter(|line| line[0] > 20.0).collect()
    };
    let expected = later(whole.path());
    assert_eq!(expected.len(), 10);
    let usual = OptimizerName::Adamw;
    for job in [at(1, 4, 1, usual), at(4, 1, 1, usual), first.clone()] {
        let cut = tempfile::tempdir().unwrap();
        keep_only_what_a_kill_leaves(cut.path(), &first, 20);
        run(cut.path(), &job, &Silent, &stop).unwrap();
        let found = later(cut.path());
        assert_eq!(found.len(), 10);
        for (found, expected) in found.iter().zip(&expected) {
            for (found, expected) in found.iter().zip(expected) {
                let off = (found - expected).abs() / expected;
                assert!(off < 1e-5, "{:?}: {found} and {expected}", job.trainer.degrees);
            }
        }
        if job == first {
            assert_eq!(found, expected, "the same layout goes on with the same bits");
        }
    }
}

/// A run of its own goes on where another's checkpoint stands, on whatever layout.
#[test]
fn a_run_continues_from_the_checkpoint_of_another() {
    let (stop, fused) = (AtomicBool::new(false), OptimizerName::DistributedFusedAdam);
    let first = on(2, 2, true, fused);
    let (whole, before) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    run(whole.path(), &first, &Silent, &stop).unwrap();
    keep_only_what_a_kill_leaves(before.path(), &first, 5);
    let checkpoint = before.path().join("output/resume/step-00000005");
    let go_on = |job: &TrainJob, checkpoint: &Path| {
        let folder = tempfile::tempdir().unwrap();
        run_from(folder.path(), job, Some(checkpoint), (&Silent, &stop)).map(|_| folder)
    };
    for job in [first.clone(), on(1, 2, false, OptimizerName::Adamw), job()] {
        let folder = go_on(&job, &checkpoint).unwrap();
        let (all, rest) = (metrics(whole.path()), metrics(folder.path()));
        let expected: Vec<_> =
            all.into_iter().filter(|line| line["step"].as_u64() > Some(5)).collect();
        assert_eq!(rest.len(), expected.len());
        for (one, other) in expected.iter().zip(&rest) {
            let loss = |line: &serde_json::Value| {
                line["reduced_train_loss"].as_f64().or(line["val_loss"].as_f64()).unwrap()
            };
            assert!((loss(one) - loss(other)).abs() < 1e-4 * loss(one), "{one} and {other}");
        }
        if job == first {
            assert_eq!(weights(folder.path()), weights(whole.path()));
        }
    }
    let refused = |job: &TrainJob, checkpoint: &Path, expected: &str| {
        let error = go_on(job, checkpoint).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    let changed = |change: fn(&mut TrainJob)| {
        let mut job = first.clone();
        change(&mut job);
        job
    };
    let other_data = changed(|job| job.model.global_batch_size = 8);
    refused(&other_data, &checkpoint, "take its data, global_batch_size and seed");
    let shorter = changed(|job| job.trainer.max_steps = 5);
    refused(&shorter, &checkpoint, "it stands after step 5, and trainer.max_steps is 5");
    let wider = changed(|job| job.model.architecture.ffn_hidden_size *= 2);
    refused(&wider, &checkpoint, "ffn_hidden_size is");
    refused(&first, &before.path().join("start"), "it holds weights only");
}

/// Sequences that one rank cannot read after a while.
struct Broken {
    thread: String,
    panics: bool,
}

impl Sequences for Broken {
    fn count(&self) -> usize {
        100
    }

    fn sequence(&self, index: usize) -> Result<Sequence, indexed::Error> {
        let here = std::thread::current().name() == Some(self.thread.as_str());
        assert!(!(here && self.panics && index > 9), "a bug on {}", self.thread);
        if here && index > 9 {
            let source = std::io::Error::other("the disk is gone");
            return Err(indexed::Error::Open { path: "train.bin".into(), source });
        }
        Ok(sequence(index as u64))
    }
}

#[test]
fn the_rank_that_fails_first_is_named_with_its_error() {
    let job = on(2, 2, false, OptimizerName::DistributedFusedAdam);
    for rank in 0..4 {
        for panics in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let broken = Broken { thread: format!("rank {rank}"), panics };
            let (feeds, stop) = ((feed_of(Arc::new(broken), false), None), AtomicBool::new(false));
            let error = run_on(folder.path(), &job, feeds, (&Silent, &stop)).unwrap_err();
            let Error::Rank(failure) = error else { panic!("{error}") };
            assert_eq!(failure.rank, rank);
            let place = format!("(data {}, tensor {})", rank / 2, rank % 2);
            assert_eq!(failure.to_string(), format!("rank {rank} of 4 failed {place}"));
            match &failure.cause {
                Cause::Panic(text) => assert!(panics && text.contains("a bug on rank")),
                cause => {
                    let text = chain(cause);
                    assert!(!panics && text.contains("the disk is gone"), "{text}");
                }
            }
        }
    }
}

/// An error and its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
