//! fp16's dynamic loss scale, moved as NeMo's `GradScaler` moves it (`nlp_overrides.py`).
//!
//! Gradients below 2⁻²⁴ vanish in fp16, so the backward runs on a scaled loss. A step whose gradient
//! overflows changes no parameter and lowers the scale; a stretch of good steps raises it. Skipped
//! steps advance neither the learning rate's schedule nor AdamW's bias correction. Whether a step
//! overflowed is read off the norm of the whole model's gradient, so every rank decides alike.

use crate::spec::optimization::{LossScale, LossScaling};

/// The loss scale of a run under way.
#[derive(Clone, Copy, Debug)]
pub struct LossScaler {
    settings: LossScaling,
    /// One over the tokens of a step, rounded down to a power of two: the engine's loss is a sum,
    /// while NeMo's scales are meant for a mean. A power of two loses no bits.
    share: f64,
    state: LossScale,
}

/// What a step's gradient says about the loss scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The gradient is finite: the parameters change.
    Good,
    /// It overflowed: the step is skipped.
    Skipped,
    /// It overflowed though the scale has fallen below 1: no scale will help.
    Hopeless,
}

impl LossScaler {
    /// The scale at the start, or where checkpoint `state` left it; a step has at most
    /// `tokens_per_step` tokens.
    pub fn new(
        settings: LossScaling,
        tokens_per_step: usize,
        state: Option<LossScale>,
    ) -> LossScaler {
        let start = LossScale {
            scale: settings.native_amp_init_scale,
            good_steps: 0,
            overflows_left: settings.hysteresis,
            skipped_steps: 0,
        };
        let share = 1.0 / tokens_per_step.next_power_of_two() as f64;
        LossScaler { settings, share, state: state.unwrap_or(start) }
    }

    /// What the gradients of the loss sum are multiplied with.
    pub fn factor(&self) -> f64 {
        self.state.scale * self.share
    }

    /// Where the scale stands.
    pub fn state(&self) -> LossScale {
        self.state
    }

    /// Moves the scale after a step whose gradient norm was `norm`.
    pub fn judge(&mut self, norm: f64) -> Verdict {
        let LossScaling { native_amp_growth_interval, hysteresis, .. } = self.settings;
        let state = &mut self.state;
        if norm.is_finite() {
            state.overflows_left = hysteresis;
            state.good_steps += 1;
            if state.good_steps >= native_amp_growth_interval {
                state.good_steps = 0;
                // Beyond fp32 torch's scaler leaves the scale as it is.
                if state.scale * 2.0 <= f64::from(f32::MAX) {
                    state.scale *= 2.0;
                }
            }
            return Verdict::Good;
        }
        state.skipped_steps += 1;
        state.good_steps = 0;
        state.overflows_left = state.overflows_left.saturating_sub(1);
        if state.overflows_left == 0 {
            state.scale *= 0.5;
        }
        if state.scale < 1.0 { Verdict::Hopeless } else { Verdict::Skipped }
    }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "these numbers are exact")]
mod tests {
    use super::*;

    const OVERFLOW: f64 = f64::INFINITY;

    fn scaler(scale: f64, interval: u64, hysteresis: u64) -> LossScaler {
        let settings = LossScaling {
            native_amp_init_scale: scale,
            native_amp_growth_interval: interval,
            hysteresis,
        };
        LossScaler::new(settings, 100, None)
    }

    /// The scale after each of these norms.
    fn scales(scaler: &mut LossScaler, norms: &[f64]) -> Vec<f64> {
        let after = |norm: &f64| {
            scaler.judge(*norm);
            scaler.state().scale
        };
        norms.iter().map(after).collect()
    }

    #[test]
    fn good_steps_in_a_row_double_the_scale() {
        let mut scaler = scaler(8.0, 3, 1);
        let norms = [1.0, 1.0, 1.0, 1.0, 1.0, OVERFLOW, 1.0, 1.0, 1.0];
        let expected = [8.0, 8.0, 16.0, 16.0, 16.0, 8.0, 8.0, 8.0, 16.0];
        assert_eq!(scales(&mut scaler, &norms), expected);
        assert_eq!(scaler.state().skipped_steps, 1);
    }

    #[test]
    fn hysteresis_forgives_until_it_is_used_up_and_comes_back_with_a_good_step() {
        let mut scaler = scaler(64.0, 100, 2);
        let norms = [OVERFLOW, f64::NAN, OVERFLOW, 1.0, OVERFLOW, 1.0, OVERFLOW, OVERFLOW];
        let expected = [64.0, 32.0, 16.0, 16.0, 16.0, 16.0, 16.0, 8.0];
        assert_eq!(scales(&mut scaler, &norms), expected);
    }

    #[test]
    fn a_scale_that_falls_below_one_ends_the_run() {
        let mut scaler = scaler(2.0, 100, 1);
        assert_eq!(scaler.judge(OVERFLOW), Verdict::Skipped);
        assert_eq!(scaler.judge(OVERFLOW), Verdict::Hopeless);
    }

    #[test]
    fn the_scale_never_leaves_fp32() {
        let mut scaler = scaler(2.0_f64.powi(126), 1, 1);
        let expected = [2.0_f64.powi(127), 2.0_f64.powi(127)];
        assert_eq!(scales(&mut scaler, &[1.0, 1.0]), expected);
    }

    #[test]
    fn a_saved_scale_goes_on_where_it_was() {
        let mut whole = scaler(64.0, 3, 2);
        let norms = [1.0, OVERFLOW, OVERFLOW, 1.0, 1.0, 1.0, OVERFLOW];
        let all = scales(&mut whole, &norms);
        let mut cut = scaler(64.0, 3, 2);
        scales(&mut cut, &norms[..2]);
        let mut resumed = LossScaler::new(cut.settings, 100, Some(cut.state()));
        assert_eq!(scales(&mut resumed, &norms[2..]), all[2..]);
        assert_eq!(resumed.state(), whole.state());
    }

    #[test]
    fn the_factor_is_the_scale_over_a_power_of_two() {
        assert_eq!(scaler(64.0, 3, 2).factor(), 0.5);
    }
}
