//! The recipe's `verify` section: what a verification compares.

use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;

/// What `sft-run verify` compares.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Verify {
    /// Steps of each training that are run again. Default: all.
    #[schemars(range(min = 1))]
    pub steps: Option<u64>,
    /// How far numbers may lie apart in an environment other than the lock's: `loss` (default
    /// 1e-4) and `grad_norm` (1e-3) of each step, relative; metrics by name (1e-2), absolute.
    pub tolerances: Option<BTreeMap<String, f64>>,
}
