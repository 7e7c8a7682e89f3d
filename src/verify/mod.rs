//! The same recipe again, held to its lock: the first thing that differs, and what caused it.
//!
//! In the environment that the lock was made in everything is compared to the bit. In another one
//! stages whose work is exact (tokenize, shard) still are; trainings and evaluations are held to
//! tolerances, and generated texts are not compared.

mod compare;
mod finding;
mod steps;
mod walk;

pub use finding::{Finding, ulps};
pub use walk::{Request, run};

use serde::Serialize;
use std::collections::BTreeMap;

/// Relative tolerance of a step's loss where the recipe says nothing.
pub const LOSS_TOLERANCE: f64 = 1e-4;
/// Relative tolerance of a step's gradient norm where the recipe says nothing.
pub const GRAD_NORM_TOLERANCE: f64 = 1e-3;
/// Absolute tolerance of an evaluation's metric where the recipe says nothing.
pub const METRIC_TOLERANCE: f64 = 1e-2;

/// How far numbers may lie apart when bits cannot be compared.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tolerances(pub BTreeMap<String, f64>);

impl Tolerances {
    /// The tolerance of the number called `name`, or `standard`.
    pub fn of(&self, name: &str, standard: f64) -> f64 {
        self.0.get(name).copied().unwrap_or(standard)
    }
}

/// How a stage came out.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "check", rename_all = "snake_case")]
pub enum Check {
    /// As the lock says; to the bit, or within the tolerances.
    Same {
        /// What was compared, for people.
        compared: String,
    },
    /// Otherwise than the lock says.
    Different {
        /// In what, the cause first.
        findings: Vec<Finding>,
    },
    /// It was not looked at.
    NotChecked {
        /// Why.
        reason: String,
    },
}

/// One stage's verdict.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StageVerdict {
    /// The stage.
    pub stage: String,
    /// Its kind.
    pub kind: String,
    /// How it came out.
    #[serde(flatten)]
    pub check: Check,
    /// Seconds it took.
    pub seconds: f64,
}

/// What a verification found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verdict {
    /// Whether bits were compared: the environment is the lock's.
    pub exact: bool,
    /// What differs in the environment, each `key: old → new`.
    pub environment: Vec<String>,
    /// The stages in the plan's order, then those that only the lock knows.
    pub stages: Vec<StageVerdict>,
}

impl Verdict {
    /// Whether nothing that was looked at differs.
    pub fn is_same(&self) -> bool {
        !self.stages.iter().any(|stage| matches!(stage.check, Check::Different { .. }))
    }

    /// The first stage that differs, with what was found.
    pub fn first_difference(&self) -> Option<(&StageVerdict, &[Finding])> {
        self.stages.iter().find_map(|stage| match &stage.check {
            Check::Different { findings } => Some((stage, findings.as_slice())),
            _ => None,
        })
    }
}
