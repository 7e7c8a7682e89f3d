//! Where a sweep stands, told by its journal alone, and what comes next.

use super::journal::{Header, Line};
use super::rungs::goes_on;
use super::sampler::{self, Past, Point};
use crate::spec::recipe::sweep::SamplerName;
use std::collections::{BTreeMap, BTreeSet};

/// How a trial ended.
#[derive(Clone, Debug, PartialEq)]
pub enum TrialEnd {
    /// It ran to its end.
    Done {
        /// What is compared.
        value: f64,
        /// All numbers of its run.
        numbers: BTreeMap<String, f64>,
        /// Seconds of its last start.
        seconds: f64,
    },
    /// Others were better at its last rung.
    Stopped,
    /// It failed, for this reason.
    Failed(String),
}

/// One trial.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Trial {
    /// Its points, once it has been started.
    pub points: Option<Vec<Point>>,
    /// What is compared, as it stood at each rung that it reached.
    pub rungs: Vec<f64>,
    /// How it ended.
    pub end: Option<TrialEnd>,
}

/// A sweep and its trials.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// What the sweep is.
    pub header: Header,
    /// Its trials, by number.
    pub trials: Vec<Trial>,
}

/// What can be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Run this trial, up to this many steps or to its end.
    Run(usize, Option<u64>),
    /// Leave this trial where it is.
    Stop(usize),
    /// Nothing before a running trial tells something.
    Wait,
}

impl State {
    /// A sweep of which these lines are known.
    pub fn new(header: Header, lines: &[Line]) -> State {
        let trials = vec![Trial::default(); header.trials];
        let mut state = State { header, trials };
        for line in lines {
            state.take(line);
        }
        state
    }

    /// Takes a line in. A later line on the same thing takes the place of an earlier one.
    pub fn take(&mut self, line: &Line) {
        let number = match line {
            Line::Sweep(_) => return,
            Line::Started { trial, .. }
            | Line::Rung { trial, .. }
            | Line::Stopped { trial }
            | Line::Done { trial, .. }
            | Line::Failed { trial, .. } => *trial,
        };
        let Some(trial) = self.trials.get_mut(number) else { return };
        match line {
            Line::Sweep(_) => {}
            Line::Started { points, .. } => {
                trial.points = Some(points.clone());
                trial.end = None;
            }
            Line::Rung { rung, value, .. } => {
                trial.rungs.truncate(*rung);
                trial.rungs.push(*value);
            }
            Line::Stopped { .. } => trial.end = Some(TrialEnd::Stopped),
            Line::Done { value, numbers, seconds, .. } => {
                let numbers = numbers.clone();
                trial.end = Some(TrialEnd::Done { value: *value, numbers, seconds: *seconds });
            }
            Line::Failed { error, .. } => trial.end = Some(TrialEnd::Failed(error.clone())),
        }
    }

    /// What comes next while these trials run; the trial with the lowest number goes first.
    pub fn next(&self, running: &BTreeSet<usize>) -> Next {
        for (number, trial) in self.trials.iter().enumerate() {
            if trial.end.is_some() || running.contains(&number) {
                continue;
            }
            if trial.points.is_none() {
                // Trials start in order.
                return if self.may_start(number) {
                    Next::Run(number, self.rung(0))
                } else {
                    Next::Wait
                };
            }
            match self.decide(number) {
                Some(true) => return Next::Run(number, self.rung(trial.rungs.len())),
                Some(false) => return Next::Stop(number),
                None => {}
            }
        }
        Next::Wait
    }

    /// Whether a started trial goes on after its last rung; none while that is open.
    fn decide(&self, number: usize) -> Option<bool> {
        let trial = &self.trials[number];
        let Some((rung, value)) = trial.rungs.iter().enumerate().next_back() else {
            return Some(true);
        };
        let reduction = self.header.asha?;
        let before = &self.trials[..number];
        if before.iter().any(|other| other.end.is_none() && other.rungs.len() <= rung) {
            return None;
        }
        let costs: Vec<f64> = before
            .iter()
            .filter_map(|other| other.rungs.get(rung))
            .map(|value| self.cost(*value))
            .collect();
        Some(goes_on(&costs, self.cost(*value), reduction))
    }

    fn rung(&self, number: usize) -> Option<u64> {
        self.header.rungs.get(number).copied()
    }

    /// The estimator waits for the results of the trials `lag` before; others wait for nothing.
    fn may_start(&self, number: usize) -> bool {
        let known = self.known(number);
        self.header.sampler != SamplerName::Tpe || known.iter().all(|trial| trial.end.is_some())
    }

    fn known(&self, number: usize) -> &[Trial] {
        &self.trials[..(number + 1).saturating_sub(self.header.lag.max(1))]
    }

    /// The points of a trial: those it was started with, or those it would be.
    pub fn points(&self, number: usize) -> Vec<Point> {
        if let Some(points) = self.trials.get(number).and_then(|trial| trial.points.clone()) {
            return points;
        }
        let past: Vec<Past> =
            self.known(number).iter().filter_map(|trial| self.past(trial)).collect();
        let Header { space, sampler, seed, .. } = &self.header;
        sampler::points(space, *sampler, *seed, number, &past)
    }

    fn past(&self, trial: &Trial) -> Option<Past> {
        let value = self.value(trial)?;
        Some(Past { points: trial.points.clone()?, cost: self.cost(value) })
    }

    /// What a trial came to: at its end, or at the last rung of one that was stopped.
    pub fn value(&self, trial: &Trial) -> Option<f64> {
        match trial.end.as_ref()? {
            TrialEnd::Done { value, .. } => Some(*value),
            TrialEnd::Stopped => trial.rungs.last().copied(),
            TrialEnd::Failed(_) => None,
        }
    }

    /// A value so that small is good; what is no number is worst.
    pub fn cost(&self, value: f64) -> f64 {
        let cost = if self.header.small_is_best { value } else { -value };
        if cost.is_nan() { f64::INFINITY } else { cost }
    }

    /// The best trial that ran to its end.
    pub fn best(&self) -> Option<usize> {
        let done = |(number, trial): (usize, &Trial)| match &trial.end {
            Some(TrialEnd::Done { value, .. }) => Some((number, self.cost(*value))),
            _ => None,
        };
        let done = self.trials.iter().enumerate().filter_map(done);
        done.min_by(|(_, one), (_, other)| one.total_cmp(other)).map(|(number, _)| number)
    }
}
