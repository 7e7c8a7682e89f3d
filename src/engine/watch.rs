//! What is measured of a model between the steps of its training.

use crate::model::Model;
use crate::parallel::mesh::Mesh;
use std::collections::BTreeMap;
use std::fmt;

/// Measures a model between steps; it changes nothing.
pub trait Watch: fmt::Debug + Sync {
    /// Metrics of the model after `step`, by their names in the log. Every rank of `mesh` calls this
    /// with its part of the model; the first gets the metrics, none of them when the run is stopped
    /// meanwhile.
    fn measure(
        &self,
        model: &Model,
        mesh: &Mesh,
        step: u64,
    ) -> Result<BTreeMap<String, f64>, Box<dyn std::error::Error + Send + Sync>>;
}
