//! One thing in which a verification came out otherwise, in numbers and in words.

use crate::base::digest::Digest;
use crate::runner::Reason;
use serde::Serialize;
use std::fmt;

/// A difference.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "finding", rename_all = "snake_case")]
pub enum Finding {
    /// The stage is asked for something else, or given something else, than the lock says.
    Asked {
        /// What differs.
        because: Reason,
    },
    /// The first step whose numbers differ.
    Step {
        /// The step, from 1.
        step: u64,
        /// `loss` or `grad_norm`.
        number: &'static str,
        /// What the lock says.
        old: f64,
        /// What came.
        new: f64,
        /// Representable numbers between them.
        ulps: u64,
        /// |new - old| / |old|.
        relative: f64,
        /// What was allowed; none when bits are compared.
        tolerance: Option<f64>,
    },
    /// A metric lies outside its tolerance, or differs at all when bits are compared.
    Metric {
        /// Its name.
        name: String,
        /// What the lock says.
        old: f64,
        /// What came.
        new: f64,
        /// What was allowed; none when bits are compared.
        tolerance: Option<f64>,
    },
    /// The output has other bytes.
    Output {
        /// The lock's digest.
        old: Digest,
        /// The digest of what came.
        new: Digest,
        /// The first file that differs, where the old output is still in the cache.
        file: Option<String>,
    },
    /// Nothing that the stage was asked or given differs, and its output does.
    NotReproducible,
    /// The stage failed with what it was asked or given.
    Failed {
        /// Its error.
        error: String,
    },
    /// The lock does not know the stage.
    New,
    /// The recipe no longer has the stage.
    Gone,
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Finding::Asked { because } => because.fmt(formatter),
            Finding::Step { step, number, old, new, ulps, relative, tolerance } => {
                write!(formatter, "step {step} is the first that differs: ")?;
                write!(formatter, "{number} {old:?} → {new:?} ({ulps} ULPs, {relative:.1e} of it")?;
                allowed(formatter, *tolerance)
            }
            Finding::Metric { name, old, new, tolerance } => {
                write!(formatter, "{name} {old:?} → {new:?} ({:.1e}", (new - old).abs())?;
                allowed(formatter, *tolerance)
            }
            Finding::Output { old, new, file } => {
                write!(formatter, "output {} → {}", old.short(), new.short())?;
                match file {
                    Some(file) => write!(formatter, ", first in `{file}`"),
                    None => Ok(()),
                }
            }
            Finding::NotReproducible => formatter.write_str(
                "the same settings and inputs gave another output: this stage is not reproducible here",
            ),
            Finding::Failed { error } => write!(formatter, "and it failed: {error}"),
            Finding::New => formatter.write_str("the lock does not know this stage"),
            Finding::Gone => formatter.write_str("the lock has this stage, the recipe does not"),
        }
    }
}

fn allowed(formatter: &mut fmt::Formatter<'_>, tolerance: Option<f64>) -> fmt::Result {
    match tolerance {
        Some(tolerance) => write!(formatter, ", {tolerance:.1e} allowed)"),
        None => formatter.write_str(")"),
    }
}

/// How many representable numbers lie between `one` and `other`, counting one of the two; equal
/// bits give 0, and the two zeros are one apart.
pub fn ulps(one: f64, other: f64) -> u64 {
    // Negative numbers count downwards from the smallest: an order in which neighbours differ by 1.
    let place = |number: f64| {
        let bits = number.to_bits();
        if bits >> 63 == 1 { !bits } else { bits | (1 << 63) }
    };
    place(one).abs_diff(place(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_one_unit_apart() {
        assert_eq!(ulps(1.0, 1.0), 0);
        assert_eq!(ulps(1.0, 1.0 + f64::EPSILON), 1);
        assert_eq!(ulps(-1.0, -1.0 - f64::EPSILON), 1);
        assert_eq!(ulps(0.0, -0.0), 1);
        assert_eq!(
            ulps(f64::MIN_POSITIVE, -f64::MIN_POSITIVE),
            2 * ulps(0.0, f64::MIN_POSITIVE) + 1
        );
    }
}
