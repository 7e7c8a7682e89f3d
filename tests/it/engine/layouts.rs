//! Every layout gives the numbers of one rank: loss and gradient norm of ten steps, dropout on,
//! answers of unequal length.

use super::{llama, optimizer, sequence, with_dropout};
use candle_core::{DType, Device, Error, Tensor};
use sft_run::base::seed::Stream;
use sft_run::data::microbatch::MicroBatch;
use sft_run::data::sampler::Share;
use sft_run::data::sequences::Sequence;
use sft_run::engine::gradient_reduction::GradientReduction;
use sft_run::engine::optimizer::OptimizerState;
use sft_run::engine::step::{self, Settings, Trainer};
use sft_run::layout::holding::Holding;
use sft_run::layout::memory::{Workload, of_stage};
use sft_run::model::Model;
use sft_run::model::formats::Formats;
use sft_run::model::weights::{Weights, start_values};
use sft_run::parallel::mesh::Mesh;
use sft_run::parallel::ranks::{Cause, Failure, run};
use sft_run::spec::architecture::{Architecture, Normalization, PositionEmbedding};
use sft_run::spec::optimization::{Degrees, Optimizer, Precision, Recompute};
use std::ops::Range;

/// Sequences of a step.
const GLOBAL_BATCH: usize = 8;
/// Longest that a sequence of these tests can be.
const SEQ_LENGTH: usize = 18;

/// A way to train.
#[derive(Clone, Copy, Debug)]
pub(super) struct Case {
    pub(super) degrees: Degrees,
    pub(super) distributed: bool,
    pub(super) recompute: Recompute,
    pub(super) packed: bool,
    /// Whether only every second sequence is learned from.
    pub(super) half_learned: bool,
    pub(super) micro_batch_size: usize,
}

/// `tensor` × `pipeline` × `data` ranks, nothing else changed.
pub(super) fn case(tensor: usize, pipeline: usize, data: usize) -> Case {
    Case {
        degrees: Degrees { data, pipeline, virtual_pipeline: 1, tensor, sequence: false },
        distributed: false,
        recompute: Recompute::None,
        packed: true,
        half_learned: false,
        micro_batch_size: 1,
    }
}

/// 8 layers, 8 heads in 4 groups, biases, dropout everywhere, an untied head.
pub(super) fn llama_8() -> Architecture {
    Architecture {
        num_layers: 8,
        num_attention_heads: 8,
        num_query_groups: 4,
        kv_channels: 4,
        bias: true,
        ..with_dropout(&llama())
    }
}

/// The same with layernorm, learned positions and a tied head.
pub(super) fn gpt_8() -> Architecture {
    Architecture {
        normalization: Normalization::Layernorm1p,
        position_embedding_type: PositionEmbedding::LearnedAbsolute,
        share_embeddings_and_output_weights: true,
        ..llama_8()
    }
}

/// One sample of each sequence, where samples are not packed.
fn unpacked(number: u64) -> Sequence {
    let sequence = sequence(number);
    let end = sequence.segments[1];
    let mut ids = sequence.tokens[..end].to_vec();
    ids.push(sequence.labels[end - 1]);
    let learned: Vec<bool> =
        std::iter::once(false).chain(sequence.loss_mask[..end].iter().copied()).collect();
    let mut one = Sequence::new();
    one.push_sample(&ids, &learned);
    one
}

fn micro_batch(numbers: Range<u64>, case: &Case) -> MicroBatch {
    let one = |number: u64| {
        let mut one = if case.packed { sequence(number) } else { unpacked(number) };
        if case.half_learned && number % 2 == 1 {
            one.loss_mask.fill(false);
        }
        one
    };
    let sequences: Vec<_> = numbers.map(|number| (number, one(number))).collect();
    MicroBatch::assemble(&sequences, SEQ_LENGTH)
}

fn start(architecture: &Architecture) -> Vec<f32> {
    // Start values of biases and norms would hide errors: shake everything.
    let shake = Stream::new(4, "shake");
    let values: Vec<f32> = start_values(architecture, 3);
    let shaken = |(index, value): (usize, f32)| value + 0.1 * shake.normal(index as u64) as f32;
    values.into_iter().enumerate().map(shaken).collect()
}

/// AdamW takes steps of the same size where the gradient is nothing but rounding, as in the biases of
/// keys, so that sums in another order grow apart with the learning rate.
fn gentle() -> Optimizer {
    Optimizer { lr: 3e-3, ..optimizer() }
}

/// The trainer of one rank.
fn trainer(architecture: &Architecture, case: &Case, mesh: &Mesh) -> Result<Trainer, Error> {
    let holding = Holding::of(architecture, &case.degrees, mesh.at);
    let (length, values) = (holding.length(), holding.cut(&start(architecture)));
    let values = Tensor::from_vec(values, length, &Device::Cpu)?;
    let formats = Formats::uniform(DType::F32);
    let weights = Weights::held(holding, &values, formats, &Device::Cpu)?;
    let model = Model::of_rank(architecture, weights, mesh)?.with_recompute(case.recompute);
    // Small buckets, so that there are many.
    let reduction = GradientReduction::with_buckets(mesh, model.weights(), case.distributed, 1000);
    let state =
        OptimizerState::of_elements(&gentle(), model.weights(), &reduction.owned(), &values)?;
    let settings =
        Settings { optimizer: gentle(), gradient_clip_val: 1.0, seed: 11, loss_scaler: None };
    Ok(Trainer::of_rank(mesh, model, (state, reduction), settings))
}

/// Loss and gradient norm of each step, as every rank saw them.
pub(super) fn train(
    architecture: &Architecture,
    case: &Case,
    steps: u64,
    before: impl Fn(&Mesh, u64, usize) + Sync,
) -> Result<Vec<Numbers>, Box<Failure<step::Error>>> {
    run(&case.degrees, |mesh| {
        let mut trainer = trainer(architecture, case, &mesh)?;
        let (data, replica) = (case.degrees.data, mesh.at.data);
        let share = Share::new(GLOBAL_BATCH, case.micro_batch_size, data, replica).unwrap();
        let mut seen = Vec::new();
        for done in 0..steps {
            let next = |number| {
                before(&mesh, done, number);
                let numbers = share.numbers(done * GLOBAL_BATCH as u64, number);
                Ok(micro_batch(numbers, case))
            };
            let outcome = trainer.step(done, share.micro_batches(), next)?;
            seen.push([outcome.loss, outcome.grad_norm]);
        }
        Ok(seen)
    })
}

/// Loss and gradient norm of each step.
pub(super) type Numbers = Vec<[f64; 2]>;

/// What ranks saw is what one saw to 1e-5, and the same on all of them.
pub(super) fn agree(case: &Case, found: &[Numbers], expected: &Numbers) {
    for rank in found {
        assert_eq!(*rank, found[0], "{case:?}: ranks disagree");
    }
    assert_eq!(found[0].len(), expected.len());
    for (step, (found, expected)) in found[0].iter().zip(expected).enumerate() {
        for (name, at) in [("loss", 0), ("gradient norm", 1)] {
            let (found, expected) = (found[at], expected[at]);
            let off = (found - expected).abs() / expected;
            assert!(off < 1e-5, "{case:?}: {name} of step {step} is {found}, not {expected}");
        }
    }
    let mean = |steps: &[[f64; 2]]| steps.iter().map(|step| step[0]).sum::<f64>() / 5.0;
    assert!(mean(&expected[5..]) < mean(&expected[..5]), "nothing was learned: {expected:?}");
}

#[test]
fn every_layout_gives_the_numbers_of_one_rank() {
    let ten = |case: &Case| train(&llama_8(), case, 10, |_, _, _| ()).unwrap();
    let expected = ten(&case(1, 1, 1)).remove(0);
    for tensor in [1, 2, 4] {
        for pipeline in [1, 2, 4] {
            for data in [1, 2] {
                let case = case(tensor, pipeline, data);
                agree(&case, &ten(&case), &expected);
            }
        }
    }
}

#[test]
fn many_replicas_and_many_chunks_give_the_numbers_of_one_rank() {
    let ten = |case: &Case| train(&gpt_8(), case, 10, |_, _, _| ()).unwrap();
    let expected = ten(&case(1, 1, 1)).remove(0);
    let mut chunks = case(1, 2, 2);
    chunks.degrees.virtual_pipeline = 4;
    let mut replicas = Case { distributed: true, ..case(2, 1, 4) };
    replicas.degrees.sequence = true;
    for case in [chunks, replicas] {
        agree(&case, &ten(&case), &expected);
    }
}

#[test]
fn a_replica_that_learns_nothing_leaves_the_numbers_of_one_rank() {
    let ten = |case: &Case| train(&gpt_8(), case, 10, |_, _, _| ()).unwrap();
    let half = |case: Case| Case { half_learned: true, ..case };
    let expected = ten(&half(case(1, 1, 1))).remove(0);
    // The second of two replicas has every second sequence. Over two stages the embedding is tied.
    for layout in [case(1, 1, 2), case(1, 2, 2), Case { distributed: true, ..case(1, 2, 2) }] {
        agree(&layout, &ten(&half(layout)), &expected);
    }
}

/// The most that each rank keeps for its backward passes, when every sequence is full and learned
/// whole, with what the plan says of its stage.
fn kept_and_planned(architecture: &Architecture, case: &Case) -> Vec<(u64, u64)> {
    let workload = Workload {
        architecture,
        seq_length: SEQ_LENGTH,
        micro_batch_size: case.micro_batch_size,
        micro_batches: GLOBAL_BATCH / (case.micro_batch_size * case.degrees.data),
        degrees: case.degrees,
        precision: Precision::Fp32,
        megatron_amp_o2: false,
        distributed_optimizer: case.distributed,
        recompute: case.recompute,
        frozen: &[],
    };
    let full = |number: u64| {
        let stream = Stream::new(9, &format!("full/{number}"));
        let ids: Vec<u32> =
            (0..=SEQ_LENGTH as u64).map(|at| (stream.word(at) % 29) as u32).collect();
        let mut sequence = Sequence::new();
        sequence.push_sample(&ids, &[true; SEQ_LENGTH + 1]);
        (number, sequence)
    };
    run(&case.degrees, |mesh| {
        let mut trainer = trainer(architecture, case, &mesh)?;
        let (data, replica) = (case.degrees.data, mesh.at.data);
        let share = Share::new(GLOBAL_BATCH, case.micro_batch_size, data, replica).unwrap();
        let next = |number| {
            let sequences: Vec<_> = share.numbers(0, number).map(full).collect();
            Ok(MicroBatch::assemble(&sequences, SEQ_LENGTH))
        };
        trainer.step(0, share.micro_batches(), next)?;
        assert_eq!(trainer.model.meter().now(), 0);
        let planned = of_stage(&workload, mesh.at.pipeline).activations;
        Ok::<_, step::Error>((trainer.model.meter().peak(), planned))
    })
    .unwrap()
}

#[test]
fn every_rank_keeps_what_the_plan_says() {
    let with = |chunks: usize, sequence: bool, mut case: Case| {
        (case.degrees.virtual_pipeline, case.degrees.sequence) = (chunks, sequence);
        case
    };
    let layouts = [
        with(1, false, case(1, 2, 1)),
        with(1, true, case(2, 4, 1)),
        with(2, false, case(1, 2, 2)),
        with(2, true, case(2, 4, 1)),
        with(4, false, case(4, 2, 1)),
        with(1, true, case(4, 1, 2)),
        Case { micro_batch_size: 2, ..with(1, true, case(2, 2, 1)) },
    ];
    let again = [Recompute::None, Recompute::Selective, Recompute::Uniform(2), Recompute::Block(1)];
    for layout in layouts {
        for recompute in again {
            let case = Case { recompute, ..layout };
            for (rank, (kept, planned)) in kept_and_planned(&gpt_8(), &case).iter().enumerate() {
                let off = (*kept as f64 - *planned as f64).abs() / *planned as f64;
                assert!(off < 0.05, "{case:?}: rank {rank} keeps {kept}, planned {planned}");
            }
        }
    }
}

/// Replicas hold the same bits after a step, sharded or not, and the distributed optimizer gives the
/// bits of the other.
#[test]
fn a_distributed_optimizer_gives_the_same_bits() {
    let case = case(1, 1, 4);
    let usual = train(&llama_8(), &case, 4, |_, _, _| ()).unwrap();
    let distributed = Case { distributed: true, ..case };
    let found = train(&llama_8(), &distributed, 4, |_, _, _| ()).unwrap();
    for (found, usual) in found[0].iter().zip(&usual[0]) {
        assert_eq!(found[0], usual[0]);
        assert!((found[1] - usual[1]).abs() < 1e-12 * usual[1]);
    }
}

#[test]
fn a_rank_that_fails_in_the_middle_of_a_step_ends_the_run() {
    let layout = Case { distributed: true, ..case(2, 1, 2) };
    for bad in 0..layout.degrees.world_size() {
        let failure = train(&llama_8(), &layout, 10, |mesh, done, number| {
            assert!(!(mesh.rank == bad && done == 2 && number == 1), "the rank's own trouble");
        });
        let failure = failure.unwrap_err();
        assert_eq!(failure.rank, bad);
        assert!(matches!(&failure.cause, Cause::Panic(text) if text.contains("own trouble")));
        assert!(failure.to_string().contains(&format!("rank {bad} of 4 failed")));
    }
}
