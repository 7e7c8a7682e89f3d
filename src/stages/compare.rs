//! The answers of two evaluations side by side.

pub use crate::metrics::compare::Difference;
use crate::metrics::compare::{self, Answer};
use crate::metrics::{Error, Texts};
use crate::spec::event::Sample;
use std::collections::BTreeMap;

/// Seed of the draws, so that a comparison comes out the same again.
const SEED: u64 = 1234;

/// The samples that both sides have, in the order of the first: same task, prompt and expectation.
pub fn paired<'a>(first: &[&'a Sample], second: &[&'a Sample]) -> Vec<(&'a Sample, &'a Sample)> {
    let key = |sample: &'a Sample| (&sample.task, &sample.prompt, &sample.expected);
    let known: BTreeMap<_, _> = second.iter().map(|sample| (key(sample), *sample)).collect();
    first.iter().filter_map(|one| Some((*one, *known.get(&key(one))?))).collect()
}

/// How the metrics of texts differ between the sides of `pairs`.
pub fn differences(pairs: &[(&Sample, &Sample)]) -> Result<Vec<Difference>, Error> {
    let first: Vec<Answer<'_>> = pairs.iter().map(|(one, _)| answer(one)).collect();
    let second: Vec<Answer<'_>> = pairs.iter().map(|(_, two)| answer(two)).collect();
    compare::differences(&first, &second, SEED)
}

fn answer(sample: &Sample) -> Answer<'_> {
    Answer { texts: Texts::from(sample), scores: &sample.scores }
}
