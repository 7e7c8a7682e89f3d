//! Every pair of ways to train, together: a cover of all pairs of values of the factors, made by a
//! small greedy search and shown to be one. (Every TP × PP × DP is in `layouts`.)

use super::layouts::{Case, Numbers, agree, case, gpt_8, llama_8, train};
use super::with_dropout;
use crate::recipe_check::load_with;
use sft_run::spec::architecture::Architecture;
use sft_run::spec::optimization::Recompute;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The factors with the number of their values.
const FACTORS: [(&str, usize); 11] = [
    ("tensor", 3),
    ("pipeline", 3),
    ("data", 2),
    ("sequence", 2),
    ("virtual", 2),
    ("recompute", 4),
    ("packed", 2),
    ("distributed", 2),
    ("dropout", 2),
    ("micro_batch", 2),
    ("architecture", 2),
];

/// A value of each factor, by its number.
type Levels = [usize; FACTORS.len()];

/// Two factors with a value each.
type Pair = [(usize, usize); 2];

fn every_combination() -> Vec<Levels> {
    let mut all = vec![[0; FACTORS.len()]];
    for (factor, (_, values)) in FACTORS.iter().enumerate() {
        let with = |levels: &Levels, value| {
            let mut levels = *levels;
            levels[factor] = value;
            levels
        };
        all = all.iter().flat_map(|levels| (0..*values).map(|value| with(levels, value))).collect();
    }
    all
}

fn pairs(levels: &Levels) -> impl Iterator<Item = Pair> {
    (1..FACTORS.len()).flat_map(move |second| {
        (0..second).map(move |first| [(first, levels[first]), (second, levels[second])])
    })
}

/// The only combinations of these values that cannot be trained: several chunks on each of one
/// pipeline stage.
fn is_legal(levels: &Levels) -> bool {
    let [_, pipeline, _, _, chunks, ..] = *levels;
    !(chunks == 1 && pipeline == 0)
}

fn of(levels: &Levels) -> (Architecture, Case) {
    let [tensor, pipeline, data, sequence, chunks, recompute, packed, distributed, rest @ ..] =
        *levels;
    let [dropout, micro_batch, architecture] = rest;
    let mut case = case(1 << tensor, 1 << pipeline, 1 << data);
    case.degrees.sequence = sequence == 1;
    case.degrees.virtual_pipeline = 1 << chunks;
    case.recompute =
        [Recompute::None, Recompute::Selective, Recompute::Uniform(3), Recompute::Block(1)]
            [recompute];
    case.packed = packed == 0;
    case.distributed = distributed == 1;
    case.micro_batch_size = 1 << micro_batch;
    let architecture = [llama_8(), gpt_8()][architecture].clone();
    let silent = Architecture {
        hidden_dropout: 0.0,
        attention_dropout: 0.0,
        ffn_dropout: 0.0,
        ..architecture.clone()
    };
    (if dropout == 0 { with_dropout(&architecture) } else { silent }, case)
}

/// Combinations that cover every pair that a legal one has: first what is asked for, then always
/// the one with most pairs that are new, and of those the one with the fewest ranks.
fn cover(first: Levels) -> Vec<Levels> {
    let legal: Vec<Levels> = every_combination().into_iter().filter(is_legal).collect();
    let mut open: BTreeSet<Pair> = legal.iter().flat_map(pairs).collect();
    let mut chosen = Vec::new();
    let mut next = Some(first);
    while let Some(levels) = next {
        pairs(&levels).for_each(|pair| {
            open.remove(&pair);
        });
        chosen.push(levels);
        let gain = |levels: &Levels| pairs(levels).filter(|pair| open.contains(pair)).count();
        let ranks = |levels: &Levels| levels[..3].iter().sum::<usize>();
        let best = legal.iter().max_by_key(|levels| (gain(levels), usize::MAX - ranks(levels)));
        next = best.filter(|levels| gain(levels) > 0).copied();
    }
    chosen
}

/// TP 2, PP 2, DP 2, sequence parallelism, the distributed optimizer, all at once.
const TOGETHER: Levels = [1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 0];

#[test]
fn a_cover_has_every_legal_pair() {
    let chosen = cover(TOGETHER);
    assert!(chosen.iter().all(is_legal) && chosen.len() < 30, "{} cases", chosen.len());
    let covered: BTreeSet<Pair> = chosen.iter().flat_map(pairs).collect();
    // Written out once more, without the search's own list of pairs.
    for (second, (other_name, others)) in FACTORS.iter().enumerate() {
        for (first, (name, ones)) in FACTORS.iter().enumerate().take(second) {
            for (one, other) in (0..*ones).flat_map(|one| (0..*others).map(move |o| (one, o))) {
                let pair = [(first, one), (second, other)];
                let illegal = pair == [(1, 0), (4, 1)];
                let found = covered.contains(&pair);
                assert_eq!(found, !illegal, "{name} {one}, {other_name} {other}");
            }
        }
    }
}

#[test]
fn every_pair_of_ways_to_train_gives_the_numbers_of_one_rank() {
    let mut expected: BTreeMap<(usize, usize, usize), Numbers> = BTreeMap::new();
    for levels in cover(TOGETHER) {
        let (architecture, case) = of(&levels);
        // What one rank trains differs by these three alone.
        let [.., packed, _, dropout, _, form] = levels;
        let expected = expected.entry((packed, dropout, form)).or_insert_with(|| {
            let single = Case { packed: case.packed, ..super::layouts::case(1, 1, 1) };
            train(&architecture, &single, 10, |_, _, _| ()).unwrap().remove(0)
        });
        agree(&case, &train(&architecture, &case, 10, |_, _, _| ()).unwrap(), expected);
    }
}

/// The messages with which the 8 layers, 8 heads and 4 groups of this test are refused.
fn refused(overrides: &[&str]) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/plan/small.yaml");
    let shape = ["model.num_layers=8", "model.num_attention_heads=8", "+model.num_query_groups=4"];
    match load_with(&path, &[&shape[..], overrides].concat()) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.into_iter().map(|problem| problem.message).collect(),
    }
}

#[test]
fn illegal_layouts_are_refused_with_the_reason() {
    let cases: [(&[&str], &str); 6] = [
        (
            &["+model.virtual_pipeline_model_parallel_size=2"],
            "2 chunks per pipeline stage need a pipeline, but there is 1 pipeline stage",
        ),
        (
            &[
                "trainer.devices=3",
                "model.pipeline_model_parallel_size=3",
                "model.global_batch_size=8",
            ],
            "8 layers cannot be split evenly over 3 pipeline stages",
        ),
        (
            &[
                "trainer.devices=4",
                "model.pipeline_model_parallel_size=4",
                "+model.virtual_pipeline_model_parallel_size=4",
            ],
            "8 layers cannot be split evenly over 4 pipeline stages × 4 chunks = 16",
        ),
        (
            &["trainer.devices=8", "model.tensor_model_parallel_size=8"],
            "4 query groups cannot be split evenly over 8 tensor ranks",
        ),
        (
            &["trainer.devices=6", "model.tensor_model_parallel_size=4"],
            "6 devices × 1 node = 6 ranks cannot be shared by models of 4 (tensor) × 1 (pipeline) \
             = 4 ranks",
        ),
        (
            &["trainer.devices=8", "model.micro_batch_size=8"],
            "a global batch of 32 is no multiple of micro-batches of 8 on 8 replicas = 64",
        ),
    ];
    for (overrides, message) in cases {
        let told = refused(overrides);
        assert!(told.iter().any(|told| told == message), "{overrides:?}: {told:#?}");
    }
    // And nothing else among the values of the table is refused.
    for tensor in [1, 2, 4] {
        for (pipeline, chunks) in [(1, 1), (2, 1), (2, 2), (4, 1), (4, 2)] {
            for data in [1, 2] {
                let layout = [
                    format!("trainer.devices={}", tensor * pipeline * data),
                    format!("model.tensor_model_parallel_size={tensor}"),
                    format!("model.pipeline_model_parallel_size={pipeline}"),
                    format!("+model.virtual_pipeline_model_parallel_size={chunks}"),
                ];
                let layout: Vec<&str> = layout.iter().map(String::as_str).collect();
                assert_eq!(refused(&layout), [""; 0], "{layout:?}");
            }
        }
    }
}
