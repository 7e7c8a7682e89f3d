//! Fails where a fault is asked for: in the middle of a backward pass, while other ranks wait.

use crate::spec::fault::{Fault, FaultKind};
use candle_core::{Result, bail};

/// Carries out `fault`.
#[expect(clippy::panic, reason = "a panic is what is asked for")]
pub(super) fn strike(fault: Fault) -> Result<()> {
    let Fault { rank, step, kind } = fault;
    match kind {
        FaultKind::Error => bail!("rank {rank} was asked to fail in step {step}"),
        FaultKind::Panic => panic!("rank {rank} was asked to panic in step {step}"),
    }
}
