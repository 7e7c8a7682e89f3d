//! The curves of a train stage as arrays for the page's script.

use crate::report::record::Training;
use crate::spec::event::{StepMetrics, ValidationMetrics};
use serde::Serialize;
use std::collections::BTreeSet;

/// Most points of one curve; a longer one is shown by means of equal stretches.
const MAX_POINTS: usize = 3000;

/// One train stage's curves, each over its own steps.
#[derive(Debug, Serialize)]
pub(super) struct Curves {
    stage: String,
    /// Steps of the curves below.
    steps: Vec<f64>,
    train_loss: Vec<f64>,
    learning_rate: Vec<f64>,
    grad_norm: Vec<f64>,
    tokens_per_second: Vec<f64>,
    validation_steps: Vec<f64>,
    validation_loss: Vec<f64>,
    /// Metrics of the validations: a name and a value at each of `validation_steps`.
    pub(super) metrics: Vec<(String, Vec<f64>)>,
}

impl Curves {
    /// The curves of `training`.
    pub(super) fn of(training: &Training) -> Curves {
        let curve = |value: fn(&StepMetrics) -> f64| thin(training.steps.iter().map(value));
        let validations = &training.validations;
        Curves {
            stage: training.stage.clone(),
            steps: curve(|step| step.step as f64),
            train_loss: curve(|step| step.reduced_train_loss),
            learning_rate: curve(|step| step.lr),
            grad_norm: curve(|step| step.grad_norm.unwrap_or(f64::NAN)),
            tokens_per_second: curve(|step| step.tokens_per_second),
            validation_steps: thin(validations.iter().map(|one| one.step as f64)),
            validation_loss: thin(validations.iter().map(|one| one.val_loss)),
            metrics: metrics(validations),
        }
    }
}

fn metrics(validations: &[ValidationMetrics]) -> Vec<(String, Vec<f64>)> {
    let names: BTreeSet<&String> =
        validations.iter().flat_map(|validation| validation.metrics.keys()).collect();
    let value = |validation: &ValidationMetrics, name: &String| {
        validation.metrics.get(name).copied().unwrap_or(f64::NAN)
    };
    let curve = |name: &String| thin(validations.iter().map(|validation| value(validation, name)));
    names.into_iter().map(|name| (name.clone(), curve(name))).collect()
}

/// Means of equal stretches, so that at most [`MAX_POINTS`] are left.
fn thin(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let values: Vec<f64> = values.collect();
    let stretch = values.len().div_ceil(MAX_POINTS).max(1);
    // Steps without a number, such as a skipped one's gradient norm, do not count.
    let mean = |part: &[f64]| {
        let numbers = part.iter().filter(|value| !value.is_nan());
        numbers.clone().sum::<f64>() / numbers.count() as f64
    };
    values.chunks(stretch).map(mean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_curves_are_thinned_to_means() {
        assert_eq!(thin([1.0, 2.0].into_iter()), [1.0, 2.0]);
        let thinned = thin((0..6001).map(f64::from));
        assert_eq!(thinned.len(), 2001);
        assert_eq!((thinned[0], thinned[2000]), (1.0, 6000.0));
    }
}
