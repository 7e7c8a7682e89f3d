//! `--inject-fault`: a failure that is asked for, to rehearse what follows one.

use super::failure::Failure;
use crate::plan::Plan;
use crate::spec::fault::{Fault, FaultKind};
use crate::spec::job::Job;

/// `RANK:STEP:error` or `RANK:STEP:panic`.
pub(super) fn parse(text: &str) -> Result<Fault, String> {
    let form = || "write RANK:STEP:error or RANK:STEP:panic, such as 3:10:panic".to_owned();
    let [rank, step, kind] = text.split(':').collect::<Vec<_>>()[..] else { return Err(form()) };
    let kind = match kind {
        "error" => FaultKind::Error,
        "panic" => FaultKind::Panic,
        _ => return Err(form()),
    };
    let (rank, step) = (rank.parse().map_err(|_| form())?, step.parse().map_err(|_| form())?);
    Ok(Fault { rank, step, kind })
}

/// Refuses a fault that no training of `plan` comes to.
pub(super) fn check(fault: Fault, plan: &Plan) -> Result<(), Failure> {
    let comes = |job: &Job| match job {
        Job::Train(job) => {
            fault.rank < job.trainer.degrees.world_size()
                && (1..=job.trainer.max_steps).contains(&fault.step)
        }
        _ => false,
    };
    if plan.stages().iter().any(|stage| comes(&stage.job)) {
        return Ok(());
    }
    let Fault { rank, step, .. } = fault;
    Err(Failure::wrong(
        format!("--inject-fault: no training of this recipe has a rank {rank} and a step {step}"),
        "ranks count from 0, steps from 1",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_a_rank_a_step_and_a_kind() {
        let fault = Fault { rank: 3, step: 10, kind: FaultKind::Panic };
        assert_eq!(parse("3:10:panic"), Ok(fault));
        assert_eq!(parse("3:10:error"), Ok(Fault { kind: FaultKind::Error, ..fault }));
        for wrong in ["", "3:10", "3:10:hang", "-1:2:error", "3:x:panic", "3:1:error:x"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
