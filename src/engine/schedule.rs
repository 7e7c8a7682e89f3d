//! The learning rate of each step: NeMo's curves (`nemo/core/optim/lr_scheduler.py`).

use crate::spec::optimization::{Optimizer, Schedule, ScheduleName};
use std::f64::consts::PI;

/// The learning rate of step `step`, counted from 0.
pub fn learning_rate(optimizer: &Optimizer, step: u64) -> f64 {
    let Some(schedule) = &optimizer.sched else { return optimizer.lr };
    match schedule.name {
        ScheduleName::CosineAnnealing if schedule.constant_steps > 0 => {
            cosine_with_constant_end(optimizer.lr, schedule, step)
        }
        ScheduleName::CosineAnnealing => cosine(optimizer.lr, schedule, step),
        ScheduleName::WarmupPolicy => warmup(optimizer.lr, schedule, step),
    }
}

/// `CosineAnnealing` with `constant_steps: 0`.
fn cosine(peak: f64, schedule: &Schedule, step: u64) -> f64 {
    let &Schedule { warmup_steps, max_steps, min_lr, .. } = schedule;
    if step <= warmup_steps && warmup_steps > 0 {
        return peak * (step + 1) as f64 / (warmup_steps + 1) as f64;
    }
    if step > max_steps || max_steps <= warmup_steps {
        return min_lr;
    }
    half_cosine(peak, min_lr, (step - warmup_steps) as f64 / (max_steps - warmup_steps) as f64)
}

/// `CosineAnnealing` with `constant_steps` above 0: Megatron-LM's form, whose constant phase is
/// at `min_lr` and comes last, and whose first step has a learning rate of 0 when it warms up.
fn cosine_with_constant_end(peak: f64, schedule: &Schedule, step: u64) -> f64 {
    let &Schedule { warmup_steps, constant_steps, max_steps, min_lr, .. } = schedule;
    if step <= warmup_steps && warmup_steps > 0 {
        return peak * step as f64 / warmup_steps as f64;
    }
    // `constant_steps` may be far more than `max_steps`: then nothing is left to decay in.
    let decay_steps = max_steps.saturating_sub(warmup_steps).saturating_sub(constant_steps);
    if decay_steps == 0 || step > warmup_steps + decay_steps {
        return min_lr;
    }
    half_cosine(peak, min_lr, (step - warmup_steps) as f64 / decay_steps as f64)
}

/// `WarmupPolicy`.
fn warmup(peak: f64, schedule: &Schedule, step: u64) -> f64 {
    let &Schedule { warmup_steps, max_steps, min_lr, .. } = schedule;
    if step <= warmup_steps && warmup_steps > 0 {
        return peak * (step + 1) as f64 / (warmup_steps + 1) as f64;
    }
    if step > max_steps { min_lr } else { peak }
}

/// From `peak` at 0 to `floor` at 1.
fn half_cosine(peak: f64, floor: f64, done: f64) -> f64 {
    floor + (peak - floor) * 0.5 * (1.0 + (PI * done).cos())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::optimization::OptimizerName;

    /// `expected`: pairs of step and learning rate, computed by hand from the formulas of
    /// `WarmupAnnealHoldPolicy` and `CosineAnnealing`.
    fn check(sched: impl Into<Option<Schedule>>, expected: &[(u64, f64)]) {
        let optimizer = Optimizer {
            name: OptimizerName::Adamw,
            lr: 1.0,
            weight_decay: 0.0,
            betas: [0.9, 0.95],
            eps: 1e-8,
            do_layer_norm_weight_decay: false,
            sched: sched.into(),
        };
        for &(step, expected) in expected {
            let found = learning_rate(&optimizer, step);
            assert!((found - expected).abs() < 1e-15, "step {step}: {found}, not {expected}");
        }
    }

    fn schedule(name: ScheduleName, warmup_steps: u64, constant_steps: u64) -> Schedule {
        Schedule { name, warmup_steps, constant_steps, min_lr: 0.1, max_steps: 12 }
    }

    #[test]
    fn cosine_without_a_constant_phase() {
        let third = 0.5 * (1.0 + (PI / 3.0).cos());
        let table = [
            (0, 0.25),
            (1, 0.5),
            (2, 0.75),
            (3, 1.0),
            (6, 0.1 + 0.9 * third),
            (12, 0.1),
            (13, 0.1),
            (500, 0.1),
        ];
        check(schedule(ScheduleName::CosineAnnealing, 3, 0), &table);
        check(schedule(ScheduleName::CosineAnnealing, 0, 0), &[(0, 1.0), (6, 0.55), (12, 0.1)]);
    }

    #[test]
    fn cosine_with_a_constant_phase_holds_the_floor_at_the_end() {
        let table = [(0, 0.0), (1, 0.5), (2, 1.0), (5, 0.55), (8, 0.1), (9, 0.1), (13, 0.1)];
        check(schedule(ScheduleName::CosineAnnealing, 2, 4), &table);
        // megatron_1.3b.yaml: constant for far longer than the run.
        check(schedule(ScheduleName::CosineAnnealing, 0, 100_000_000), &[(0, 0.1), (7, 0.1)]);
        check(schedule(ScheduleName::CosineAnnealing, 2, 100_000_000), &[(1, 0.5), (3, 0.1)]);
    }

    #[test]
    fn warmup_holds_the_peak_until_max_steps() {
        let table = [(0, 0.25), (3, 1.0), (4, 1.0), (12, 1.0), (13, 0.1)];
        check(schedule(ScheduleName::WarmupPolicy, 3, 0), &table);
    }

    #[test]
    fn no_schedule_is_constant() {
        check(None, &[(0, 1.0), (1_000_000, 1.0)]);
    }
}
