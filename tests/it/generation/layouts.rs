//! A model over tensor-, pipeline- and data-parallel ranks says what it says on one.

use super::cached::{VOCAB, prompts};
use super::sampling::{greedy, sampled};
use super::small_model::{NoTexts, learned, random, rotary};
use candle_core::DType;
use sft_run::checkpoint::whole::{self, Progress};
use sft_run::engine::generation::{Cached, Generated, Request, Rules, SessionError, decode};
use sft_run::engine::replica::Replica;
use sft_run::engine::scoring::{Scored, Sums, score};
use sft_run::engine::team::{Spread, Team, together};
use sft_run::model::formats::Formats;
use sft_run::spec::architecture::Architecture;
use sft_run::spec::backend::Backend;
use sft_run::spec::generation::Generation;
use sft_run::spec::optimization::Degrees;
use std::path::Path;
use std::sync::atomic::AtomicBool;

/// Four layers, so that two pipeline stages can have two chunks each.
fn deep(architecture: &Architecture) -> Architecture {
    Architecture { num_layers: 4, ..architecture.clone() }
}

fn saved(folder: &Path, architecture: &Architecture) {
    whole::save(folder, &random(architecture), Progress::default(), None).expect("saves");
}

fn degrees(tensor: usize, pipeline: usize, data: usize) -> Degrees {
    Degrees { tensor, pipeline, data, ..Degrees::SINGLE }
}

fn spread(degrees: Degrees) -> Spread {
    Spread { degrees, formats: Formats::uniform(DType::F32), backend: Backend::Cpu, nodes: None }
}

fn team(folder: &Path, degrees: Degrees) -> Team {
    Team::open(folder, spread(degrees)).expect("a team")
}

fn texts(
    team: &Team,
    prompts: &[Vec<u32>],
    settings: &Generation,
) -> Result<Vec<Generated>, SessionError> {
    let (rules, stop) = (Rules::new(settings, VOCAB, None)?, AtomicBool::new(false));
    let work = |replica: Replica<'_>| {
        let mut cached =
            Cached::new(replica, settings.batch_size, &[32; 16]).map_err(SessionError::Model)?;
        let share = replica.share();
        let request = Request { prompts, rules: &rules, vocabulary: &NoTexts, stop: &stop, share };
        Ok::<_, SessionError>(decode(&mut cached, &request, &mut |_| ())?)
    };
    team.lead(work).map(together)
}

/// The same tokens and ends, and log-probabilities to 1e-4.
fn same(found: &[Generated], expected: &[Generated], what: &str) {
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(found.tokens, expected.tokens, "{what}");
        assert_eq!(found.stop_reason, expected.stop_reason, "{what}");
        for (found, expected) in found.logprob.iter().zip(&expected.logprob) {
            assert!((found - expected).abs() < 1e-4, "{what}: {found} and {expected}");
        }
    }
}

#[test]
fn every_layout_and_batch_gives_the_texts_of_one_rank() {
    let grouped = Degrees { virtual_pipeline: 2, ..degrees(1, 2, 1) };
    let layouts = [
        degrees(2, 1, 1),
        degrees(1, 2, 1),
        degrees(1, 4, 1),
        grouped,
        degrees(1, 1, 3),
        degrees(2, 2, 2),
    ];
    for architecture in [deep(&learned(VOCAB)), deep(&rotary(VOCAB))] {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("model");
        saved(&path, &architecture);
        for settings in [greedy(), Generation { compute_logprob: true, ..sampled() }] {
            let settings =
                |batch_size| Generation { max_length: 9, batch_size, ..settings.clone() };
            let expected =
                texts(&team(&path, Degrees::SINGLE), &prompts(), &settings(1)).expect("texts");
            for layout in layouts {
                let team = team(&path, layout);
                for batch_size in [1, 3, 16] {
                    let found = texts(&team, &prompts(), &settings(batch_size)).expect("texts");
                    assert_eq!(found.len(), expected.len());
                    same(&found, &expected, &format!("{layout:?}, batch {batch_size}"));
                }
            }
        }
    }
}

#[test]
fn every_layout_gives_the_scores_of_one_rank() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model");
    saved(&path, &deep(&rotary(VOCAB)));
    let prompts: Vec<Vec<u32>> = prompts().into_iter().filter(|prompt| prompt.len() > 2).collect();
    let learned: Vec<Vec<bool>> = prompts.iter().map(|prompt| vec![true; prompt.len()]).collect();
    let sums = |degrees: Degrees| -> Vec<Sums> {
        let stop = AtomicBool::new(false);
        let work = |replica: Replica<'_>| {
            let (first, every) = replica.share();
            let pairs = prompts.iter().zip(&learned).skip(first).step_by(every);
            let scored: Vec<_> =
                pairs.map(|(tokens, learned)| Scored { tokens, learned }).collect();
            score(replica, &scored, &stop, |_| ())
                .map_err(|error| SessionError::Model(error.into()))
        };
        together(team(&path, degrees).lead(work).expect("scores"))
    };
    let expected = sums(Degrees::SINGLE);
    for layout in [degrees(2, 1, 1), degrees(1, 2, 2), degrees(2, 2, 1)] {
        let found = sums(layout);
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(&expected) {
            assert!((found.loss_sum - expected.loss_sum).abs() < 1e-5 * expected.loss_sum);
            assert_eq!((found.tokens, found.correct), (expected.tokens, expected.correct));
        }
    }
}

#[test]
fn what_goes_wrong_over_ranks_is_told_and_nothing_hangs() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model");
    saved(&path, &deep(&rotary(VOCAB)));
    let refused = Team::open(&path, spread(degrees(4, 1, 1))).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "2 key/value heads cannot be shared by 4 tensor ranks: choose a number that divides them"
    );
    let refused = Team::open(&path, spread(degrees(1, 3, 1))).unwrap_err();
    assert!(refused.to_string().starts_with("4 layers cannot be shared by 3 pipeline ranks"));

    // The first stage cannot embed this id: the leader's error, and all ranks end.
    let error = texts(&team(&path, degrees(2, 2, 2)), &[vec![1, 99], vec![2]], &greedy());
    let error = error.unwrap_err();
    let causes = std::iter::successors(Some(&error as &dyn std::error::Error), |one| one.source());
    let told = causes.map(ToString::to_string).collect::<Vec<_>>().join(": ");
    assert!(told.contains("token 99 is not below the vocabulary's size 61"), "{told}");
}
