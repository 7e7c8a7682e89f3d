//! When training stops because a watched value no longer improves.
//!
//! The rule is PyTorch Lightning's `EarlyStopping`: a value counts as better when it beats the best
//! one by more than `min_delta`; after `patience` validations in a row without a better one, or on a
//! value that is no number, training ends.

use crate::spec::event::ValidationMetrics;
use crate::spec::job::EarlyStopping;
use std::path::Path;
use std::{fs, io};

/// The rule and what it has seen.
#[derive(Clone, Debug)]
pub struct Patience<'a> {
    rule: &'a EarlyStopping,
    best: Option<f64>,
    /// Validations since the best.
    waited: u64,
    stops: bool,
}

impl<'a> Patience<'a> {
    /// Nothing has been seen.
    pub fn new(rule: &'a EarlyStopping) -> Patience<'a> {
        Patience { rule, best: None, waited: 0, stops: false }
    }

    /// Sees again what the metrics file at `path` tells of earlier validations, so that a resumed
    /// run stops where an uninterrupted one does.
    pub fn replay(mut self, path: &Path) -> io::Result<Patience<'a>> {
        for line in fs::read_to_string(path)?.lines() {
            // Lines of steps have no `val_loss`.
            if let Ok(metrics) = serde_json::from_str(line) {
                self.see(&metrics);
            }
        }
        Ok(self)
    }

    /// Takes a validation into account; one without the watched value changes nothing.
    pub fn see(&mut self, metrics: &ValidationMetrics) {
        let Some(value) = metrics.value(&self.rule.monitor) else { return };
        let better = |best: f64| {
            if self.rule.more_is_better {
                value - self.rule.min_delta > best
            } else {
                value + self.rule.min_delta < best
            }
        };
        if !value.is_finite() {
            self.stops = true;
        } else if self.best.is_none_or(better) {
            (self.best, self.waited) = (Some(value), 0);
        } else {
            self.waited += 1;
            self.stops |= self.waited >= self.rule.patience;
        }
    }

    /// Whether training ends here.
    pub fn stops(&self) -> bool {
        self.stops
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn check(more_is_better: bool, values: &[f64], stop: Option<usize>) {
        let (monitor, min_delta) = ("val_metrics/avg_a".to_owned(), 0.1);
        let rule = EarlyStopping { monitor, more_is_better, min_delta, patience: 2 };
        let mut patience = Patience::new(&rule);
        let place = values.iter().position(|value| {
            let metrics = BTreeMap::from([(rule.monitor.clone(), *value)]);
            patience.see(&ValidationMetrics {
                step: 1,
                consumed_samples: 1,
                val_loss: 0.0,
                metrics,
            });
            patience.stops()
        });
        assert_eq!(place, stop, "{values:?}");
    }

    #[test]
    fn training_stops_after_values_that_are_not_better() {
        check(false, &[1.0, 0.5, 0.45, 0.41, 0.2], Some(3));
        check(false, &[1.0, 0.5, 0.45, 0.3, 0.25, 0.25], Some(5));
        check(true, &[1.0, 0.5, 2.0, 2.05, 2.2], None);
        check(true, &[1.0, 0.5, 0.9], Some(2));
        check(false, &[1.0, f64::NAN], Some(1));
    }
}
