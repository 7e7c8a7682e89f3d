//! Recomputation: the same bits, and the memory that the plan promises.

use super::{SEQ_LENGTH, f32_model, gpt, half_rope, learn, llama, micro_batch, with_dropout};
use sft_run::base::seed::Stream;
use sft_run::data::microbatch::MicroBatch;
use sft_run::data::sequences::Sequence;
use sft_run::layout::memory::{Workload, per_device};
use sft_run::spec::architecture::Architecture;
use sft_run::spec::optimization::{Degrees, Precision, Recompute};

const ALL: [Recompute; 8] = [
    Recompute::None,
    Recompute::Selective,
    Recompute::Uniform(1),
    Recompute::Uniform(2),
    Recompute::Uniform(3),
    Recompute::Uniform(9),
    Recompute::Block(2),
    Recompute::Block(9),
];

fn four_layers(architecture: &Architecture) -> Architecture {
    Architecture { num_layers: 4, ..architecture.clone() }
}

#[test]
fn it_changes_no_bit() {
    for architecture in [with_dropout(&gpt()), llama(), half_rope()].map(|one| four_layers(&one)) {
        let run = |recompute| {
            let model = f32_model(&architecture).with_recompute(recompute);
            let loss = learn(&model, &micro_batch(0..4)) + learn(&model, &micro_batch(4..5));
            assert_eq!(model.meter().now(), 0);
            (loss, model.weights().gradients().to_vec1::<f32>().unwrap())
        };
        let kept = run(Recompute::None);
        for recompute in ALL {
            assert!(run(recompute) == kept, "{recompute:?}");
        }
    }
}

/// Sequences of the full length, of which every token is learned with share `learned`.
fn full(sequences: u64, learned: f64) -> MicroBatch {
    let sequence = |number: u64| {
        let stream = Stream::new(9, &format!("full/{number}"));
        let ids: Vec<u32> =
            (0..=SEQ_LENGTH as u64).map(|at| (stream.word(at) % 29) as u32).collect();
        let places = 0..ids.len();
        let marks: Vec<bool> = places.map(|at| at as f64 >= (1.0 - learned) * 19.0).collect();
        let mut sequence = Sequence::new();
        sequence.push_sample(&ids, &marks);
        (number, sequence)
    };
    MicroBatch::assemble(&(0..sequences).map(sequence).collect::<Vec<_>>(), SEQ_LENGTH)
}

#[test]
fn the_most_that_is_kept_is_what_the_plan_says() {
    let mut seen = Vec::new();
    for architecture in [gpt(), llama(), half_rope()].map(|one| four_layers(&one)) {
        for (recompute, micro_batch_size) in ALL.iter().flat_map(|one| [(*one, 1), (*one, 3)]) {
            let workload = Workload {
                architecture: &architecture,
                seq_length: SEQ_LENGTH,
                micro_batch_size,
                micro_batches: 2,
                degrees: Degrees::SINGLE,
                precision: Precision::Fp32,
                megatron_amp_o2: false,
                distributed_optimizer: false,
                recompute,
                frozen: &[],
            };
            let planned = per_device(&workload).activations;
            let peak = |learned| {
                let model = f32_model(&architecture).with_recompute(recompute);
                learn(&model, &full(micro_batch_size as u64, learned));
                learn(&model, &full(micro_batch_size as u64, learned));
                model.meter().peak()
            };
            assert_eq!(peak(1.0), planned, "{recompute:?}, {micro_batch_size}");
            // Prompts that are not learned have no logits.
            assert!(peak(0.5) <= planned);
            seen.push(planned);
        }
    }
    // None, selective and full are different sizes.
    assert!(seen[0] > seen[2] && seen[2] > seen[4], "{seen:?}");
}
