//! What is measured of a model between the steps of its training.

use crate::model::Model;
use std::collections::BTreeMap;
use std::fmt;

/// Measures a model between steps; it changes nothing.
pub trait Watch: fmt::Debug + Sync {
    /// Metrics of the model after `step`, by their names in the log; none of them when the run is
    /// stopped meanwhile.
    fn measure(
        &self,
        model: &Model,
        step: u64,
    ) -> Result<BTreeMap<String, f64>, Box<dyn std::error::Error + Send + Sync>>;
}
