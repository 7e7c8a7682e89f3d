//! Runs the trials of a sweep side by side and writes what they came to into its journal.

use super::journal::{Error, Journal, Line};
use super::objective::chosen;
use super::sampler;
use super::state::{Next, State};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::Scope;
use std::time::Duration;

/// A trial to run.
#[derive(Clone, Debug, PartialEq)]
pub struct Order {
    /// Its number, from 0.
    pub trial: usize,
    /// Its keys with their values as they are typed.
    pub values: Vec<(String, String)>,
    /// Which of the places that run at a time, from 0.
    pub slot: usize,
    /// The step after which it is paused; none runs to the end.
    pub pause_at: Option<u64>,
}

/// What came of an order.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It ran to its end.
    Done {
        /// The numbers of its run.
        numbers: BTreeMap<String, f64>,
        /// Seconds it took.
        seconds: f64,
    },
    /// It is paused, with what is compared.
    Paused(f64),
    /// It failed.
    Failed(String),
    /// It was stopped from outside and can be gone on with.
    Interrupted,
}

/// How trials are run: as processes, or by a function in tests.
pub trait Launch: Sync {
    /// Runs a trial to its end or pause; returns soon after the sweep is stopped.
    fn run(&self, order: &Order) -> Outcome;

    /// Is told of every line of the journal.
    fn told(&self, state: &State, line: &Line);
}

/// How a sweep is driven.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// Trials at a time.
    pub parallel: usize,
    /// Stop all when one fails.
    pub fail_fast: bool,
    /// Raised to stop all.
    pub stop: &'a AtomicBool,
}

/// How often a waiting driver looks whether it is stopped.
const LOOK: Duration = Duration::from_millis(50);

/// Runs what is left of a sweep; ends when nothing is, or when it is stopped.
pub fn drive(
    state: &mut State,
    journal: &mut Journal,
    launch: &dyn Launch,
    options: Options,
) -> Result<(), Error> {
    let mut desk = Desk { state, journal, launch, options, running: BTreeMap::new() };
    std::thread::scope(|scope| {
        // Trials that still run are waited for, so they are stopped when the journal fails.
        desk.work(scope).inspect_err(|_| options.stop.store(true, Ordering::Relaxed))
    })
}

struct Desk<'a> {
    state: &'a mut State,
    journal: &'a mut Journal,
    launch: &'a dyn Launch,
    options: Options<'a>,
    /// The trials that run, with their slots.
    running: BTreeMap<usize, usize>,
}

impl<'a> Desk<'a> {
    fn work<'scope>(&mut self, scope: &'scope Scope<'scope, '_>) -> Result<(), Error>
    where
        'a: 'scope,
    {
        let (sender, results) = mpsc::channel();
        loop {
            while let Some(order) = self.next()? {
                let (sender, launch) = (sender.clone(), self.launch);
                scope.spawn(move || {
                    let outcome = launch.run(&order);
                    // The other end goes away only when the journal cannot be written.
                    let _ = sender.send((order, outcome));
                });
            }
            if self.running.is_empty() {
                return Ok(());
            }
            if let Ok((order, outcome)) = results.recv_timeout(LOOK) {
                self.finish(&order, outcome)?;
            }
        }
    }

    fn write(&mut self, line: &Line) -> Result<(), Error> {
        self.journal.append(line)?;
        self.state.take(line);
        self.launch.told(self.state, line);
        Ok(())
    }

    /// The next trial to run, if there is one and a slot for it.
    fn next(&mut self) -> Result<Option<Order>, Error> {
        let stopped = || self.options.stop.load(Ordering::Relaxed);
        let taken: BTreeSet<usize> = self.running.values().copied().collect();
        let slot = (0..self.options.parallel).find(|slot| !taken.contains(slot));
        let Some(slot) = slot.filter(|_| !stopped()) else { return Ok(None) };
        loop {
            match self.state.next(&self.running.keys().copied().collect()) {
                Next::Wait => return Ok(None),
                Next::Stop(trial) => self.write(&Line::Stopped { trial })?,
                Next::Run(trial, pause_at) => {
                    let points = self.state.points(trial);
                    if self.state.trials[trial].points.is_none() {
                        self.write(&Line::Started { trial, points: points.clone() })?;
                    }
                    self.running.insert(trial, slot);
                    let values = sampler::typed(&self.state.header.space, &points);
                    return Ok(Some(Order { trial, values, slot, pause_at }));
                }
            }
        }
    }

    fn finish(&mut self, order: &Order, outcome: Outcome) -> Result<(), Error> {
        let trial = order.trial;
        self.running.remove(&trial);
        let line = match outcome {
            Outcome::Interrupted => return Ok(()),
            Outcome::Failed(error) => Line::Failed { trial, error },
            Outcome::Paused(value) => {
                let rung = self.state.trials[trial].rungs.len();
                let worst = if self.state.header.small_is_best { f64::MAX } else { f64::MIN };
                let value = if value.is_finite() { value } else { worst };
                Line::Rung { trial, rung, step: order.pause_at.unwrap_or(0), value }
            }
            Outcome::Done { mut numbers, seconds } => {
                let metric = &self.state.header.metric;
                let result = chosen(&numbers, metric).and_then(|value| {
                    let told = || format!("{metric} is {value} at the end");
                    value.is_finite().then_some(value).ok_or_else(told)
                });
                // JSON has no others.
                numbers.retain(|_, number| number.is_finite());
                match result {
                    Ok(value) => Line::Done { trial, value, numbers, seconds },
                    Err(error) => Line::Failed { trial, error },
                }
            }
        };
        if matches!(line, Line::Failed { .. }) && self.options.fail_fast {
            self.options.stop.store(true, Ordering::Relaxed);
        }
        self.write(&line)
    }
}
