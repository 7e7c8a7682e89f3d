//! Split linear layers made of the rank's weights.

use super::weights::{ParameterView, Weights};
use crate::parallel::linear::{ColumnParallel, RowParallel};
use crate::parallel::regions::TensorAxis;
use candle_core::Result;

/// The column-parallel layer called `prefix`.
pub(super) fn column(axis: &TensorAxis, weights: &Weights, prefix: &str) -> Result<ColumnParallel> {
    let (weight, bias) = parameters(weights, prefix)?;
    Ok(ColumnParallel::new(axis, weight, bias))
}

/// The row-parallel layer called `prefix`.
pub(super) fn row(axis: &TensorAxis, weights: &Weights, prefix: &str) -> Result<RowParallel> {
    let (weight, bias) = parameters(weights, prefix)?;
    Ok(RowParallel::new(axis, weight, bias))
}

fn parameters(weights: &Weights, prefix: &str) -> Result<(ParameterView, Option<ParameterView>)> {
    let weight = weights.expect_for_products(&format!("{prefix}.weight"))?;
    Ok((weight, weights.view(&format!("{prefix}.bias"))?))
}
