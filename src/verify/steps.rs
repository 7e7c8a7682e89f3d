//! Holds a training's steps to the recorded ones while they happen, and ends it at the first that
//! differs.

use super::finding::{Finding, ulps};
use super::{GRAD_NORM_TOLERANCE, LOSS_TOLERANCE, Tolerances};
use crate::base::step_trace::TracedStep;
use crate::spec::event::{Event, Sink, StepMetrics};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// A sink that compares steps and hands every event on.
pub(super) struct Watch<'a> {
    inner: &'a dyn Sink,
    /// Raised when the training need not go on.
    stop: &'a AtomicBool,
    recorded: &'a [TracedStep],
    /// None when bits are compared.
    tolerances: Option<&'a Tolerances>,
    /// After so many steps nothing more is compared; none for all.
    limit: Option<u64>,
    seen: Mutex<Seen>,
}

/// What the steps so far showed.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// Steps that were compared.
    pub(super) compared: u64,
    /// The first difference.
    pub(super) difference: Option<Finding>,
    /// Whether this watch ended the training.
    pub(super) ended: bool,
}

impl<'a> Watch<'a> {
    pub(super) fn new(
        (inner, stop): (&'a dyn Sink, &'a AtomicBool),
        recorded: &'a [TracedStep],
        tolerances: Option<&'a Tolerances>,
        limit: Option<u64>,
    ) -> Watch<'a> {
        Watch { inner, stop, recorded, tolerances, limit, seen: Mutex::default() }
    }

    /// What the steps showed.
    pub(super) fn seen(&self) -> Seen {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn step(&self, metrics: &StepMetrics) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.ended {
            return;
        }
        let old = usize::try_from(metrics.step - 1).ok().and_then(|at| self.recorded.get(at));
        if let Some(old) = old {
            seen.compared += 1;
            seen.difference = self.difference(old, metrics);
        }
        let enough = self.limit.is_some_and(|limit| metrics.step >= limit);
        if seen.difference.is_some() || enough {
            seen.ended = true;
            self.stop.store(true, Ordering::Relaxed);
        }
    }

    fn difference(&self, old: &TracedStep, new: &StepMetrics) -> Option<Finding> {
        // The trace holds a skipped step's norm as infinite.
        let grad_norm = new.grad_norm.unwrap_or(f64::INFINITY);
        let numbers = [
            ("loss", LOSS_TOLERANCE, old.loss, new.reduced_train_loss),
            ("grad_norm", GRAD_NORM_TOLERANCE, old.grad_norm, grad_norm),
        ];
        numbers.into_iter().find_map(|(number, standard, old, value)| {
            let relative = (value - old).abs() / old.abs().max(f64::MIN_POSITIVE);
            let tolerance = self.tolerances.map(|all| all.of(number, standard));
            let fits = match tolerance {
                None => value.to_bits() == old.to_bits(),
                #[expect(clippy::float_cmp, reason = "infinities have no distance")]
                Some(tolerance) => value == old || relative <= tolerance,
            };
            let ulps = ulps(old, value);
            let (step, new) = (new.step, value);
            (!fits).then_some(Finding::Step { step, number, old, new, ulps, relative, tolerance })
        })
    }
}

impl Sink for Watch<'_> {
    fn emit(&self, event: Event) {
        if let Event::Step(metrics) = &event {
            self.step(metrics);
        }
        self.inner.emit(event);
    }
}
