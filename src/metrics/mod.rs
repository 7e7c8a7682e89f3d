//! What the evaluation computes, each metric by its published definition.
//!
//! A metric sees texts and numbers, never a model. [`scorer`] takes the metrics that a recipe names
//! and scores an evaluation's samples with all of them: [`texts`], [`rouge`], [`bleu`], [`chrf`],
//! [`lexicon`] and [`expression`] look at one generated text, [`program`] hands the samples to
//! another program, [`likelihood`] adds up what the model gave to the expected tokens, [`choices`]
//! answers rows of multiple choice by likelihood. A [`tally`] is one metric over all samples, of
//! which [`bootstrap`] takes intervals.

pub mod bag;
pub mod bleu;
pub mod bootstrap;
pub mod choices;
pub mod chrf;
mod columns;
pub mod compare;
pub mod expression;
pub mod lexicon;
pub mod likelihood;
pub mod program;
mod program_lines;
pub mod rouge;
pub mod scorer;
pub mod tally;
pub mod texts;

pub use likelihood::Likelihood;
pub use scorer::{Error, Results, Scorer};

use crate::spec::event::Sample;
use serde::Serialize;

/// A sample as a metric of texts sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Texts<'a> {
    /// What the model was given.
    pub prompt: &'a str,
    /// What it should have answered.
    pub expected: &'a str,
    /// What it answered.
    pub output: &'a str,
}

impl<'a> From<&'a Sample> for Texts<'a> {
    /// An expectation that there is not is an empty one.
    fn from(sample: &'a Sample) -> Texts<'a> {
        let expected = sample.expected.as_deref().unwrap_or_default();
        Texts { prompt: &sample.prompt, expected, output: &sample.output }
    }
}

impl Texts<'_> {
    /// The sample as a JSON object on a line of its own.
    fn json_line(&self) -> Vec<u8> {
        // Three strings always have a JSON form.
        let mut line = serde_json::to_vec(self).unwrap_or_default();
        line.push(b'\n');
        line
    }
}
