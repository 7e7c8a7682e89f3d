//! AdamW's state over the flat buffers, with NeMo's weight-decay groups: moments and, beside
//! half-precision parameters, what their fp32 values have beyond them.

use crate::checkpoint::piecewise::Numbers;
use crate::kernels::masters::Masters;
use crate::kernels::optimizer::{AdamW, Buffers, step};
use crate::layout::holding::intersection;
use crate::model::weights::Weights;
use crate::spec::optimization::Optimizer;
use candle_core::{Device, Result, Tensor, bail};
use std::ops::Range;

/// Elements whose masters are made together: 16 MiB of them on the device.
const BAND: usize = 4 << 20;

/// The moments of the parameters that this rank changes, and their fp32 masters; frozen ones have a
/// master, so that their own value is what is saved, and no moments.
#[derive(Debug)]
pub struct OptimizerState {
    settings: Optimizer,
    /// Elements of the flat buffers that this rank changes; the tensors here hold them end to end.
    owned: Vec<Range<usize>>,
    /// What of them is not frozen.
    learned: Vec<Range<usize>>,
    runs: Vec<Run>,
    /// What the owned parameters have beyond the model's own.
    masters: Masters,
    /// Moments have the learned elements end to end.
    first_moment: Tensor,
    second_moment: Tensor,
}

/// Elements that lie end to end in every buffer.
#[derive(Debug)]
struct Run {
    /// Where they lie in the flat buffers.
    range: Range<usize>,
    /// Where they begin in the masters.
    at: usize,
    /// Where they begin in the moments.
    moment_at: usize,
    /// Which of them decay, counted from the run's first; no two ranges touch.
    decaying: Vec<Range<usize>>,
}

/// What changes from step to step.
#[derive(Clone, Copy, Debug)]
pub struct StepSettings {
    /// The step's number, from 1.
    pub number: u64,
    /// Its learning rate.
    pub learning_rate: f64,
    /// Gradients are multiplied with this first.
    pub gradient_scale: f64,
}

impl OptimizerState {
    /// State before the first step, of all parameters; `start` are the values of which `weights` were
    /// made, as they lie in the flat buffers `[length]`, not rounded.
    pub fn new(settings: &Optimizer, weights: &Weights, start: &Tensor) -> Result<OptimizerState> {
        let all = 0..weights.holding().length();
        OptimizerState::of_elements(settings, weights, &[all], start)
    }

    /// The same of elements `owned` of the flat buffers.
    pub fn of_elements(
        settings: &Optimizer,
        weights: &Weights,
        owned: &[Range<usize>],
        start: &Tensor,
    ) -> Result<OptimizerState> {
        let (formats, device) = (weights.formats(), weights.device());
        let learned = weights.holding().learned(owned);
        let count: usize = learned.iter().map(Range::len).sum();
        let zeros = || Tensor::zeros(count, formats.gradients(), device);
        let masters = if formats.parameters == formats.gradients() {
            Masters::Nothing
        } else {
            let pieces = owned.iter().map(|range| start.narrow(0, range.start, range.len()));
            let start = Tensor::cat(&pieces.collect::<Result<Vec<_>>>()?, 0)?;
            Masters::of(&start, formats.parameters, device)?
        };
        Ok(OptimizerState {
            settings: settings.clone(),
            owned: owned.to_vec(),
            runs: runs(weights, owned, settings.do_layer_norm_weight_decay),
            learned,
            masters,
            first_moment: zeros()?,
            second_moment: zeros()?,
        })
    }

    /// The same with these moments of the elements that are learned.
    pub fn with_moments(self, [first, second]: [Vec<f32>; 2]) -> Result<OptimizerState> {
        let tensor = |values: Vec<f32>| {
            let device = self.first_moment.device();
            Tensor::from_vec(values, self.first_moment.dims(), &Device::Cpu)?.to_device(device)
        };
        let (first_moment, second_moment) = (tensor(first)?, tensor(second)?);
        Ok(OptimizerState { first_moment, second_moment, ..self })
    }

    /// Elements of the flat buffers that this rank changes.
    pub fn owned(&self) -> &[Range<usize>] {
        &self.owned
    }

    /// What of the owned elements is not frozen.
    pub fn learned(&self) -> &[Range<usize>] {
        &self.learned
    }

    /// The two moments of the learned elements, end to end.
    pub fn moments(&self) -> [&Tensor; 2] {
        [&self.first_moment, &self.second_moment]
    }

    /// The owned parameters in fp32, end to end, where the model's own are in half precision.
    pub fn masters<'a>(&'a self, weights: &'a Weights) -> Option<OwnedMasters<'a>> {
        let rounds = !matches!(self.masters, Masters::Nothing);
        rounds.then_some(OwnedMasters { state: self, weights })
    }

    /// Changes every parameter by its gradient; tells `changed_before`, on the way, up to where in the
    /// flat buffers that is done. [`Weights::values_changed`] is to be called afterwards.
    pub fn step(
        &self,
        weights: &Weights,
        by: StepSettings,
        mut changed_before: impl FnMut(usize) -> Result<()>,
    ) -> Result<()> {
        for Run { range, at, moment_at, decaying } in &self.runs {
            changed_before(range.start)?;
            let flat = |buffer: &Tensor| buffer.narrow(0, range.start, range.len());
            let moment = |buffer: &Tensor| buffer.narrow(0, *moment_at, range.len());
            let buffers = Buffers {
                parameters: &flat(weights.values())?,
                masters: &self.masters.narrow(*at, range.len())?,
                gradients: &flat(weights.gradients())?,
                first_moment: &moment(&self.first_moment)?,
                second_moment: &moment(&self.second_moment)?,
                decaying,
            };
            let settings = AdamW {
                learning_rate: by.learning_rate,
                betas: self.settings.betas,
                epsilon: self.settings.eps,
                weight_decay: self.settings.weight_decay,
                step: by.number,
                gradient_scale: by.gradient_scale,
            };
            step(&buffers, &settings)?;
        }
        Ok(())
    }
}

/// The fp32 values of the parameters that a rank owns, end to end; made a band at a time
/// where they are not kept.
#[derive(Clone, Copy, Debug)]
pub struct OwnedMasters<'a> {
    state: &'a OptimizerState,
    weights: &'a Weights,
}

impl Numbers for OwnedMasters<'_> {
    fn on_host(&self, range: &Range<usize>) -> Result<Vec<f32>> {
        let OptimizerState { owned, masters, .. } = self.state;
        let (mut before, mut values) = (0, Vec::with_capacity(range.len()));
        for owned in owned {
            let here = intersection(&(before..before + owned.len()), range);
            for start in here.clone().step_by(BAND) {
                let count = BAND.min(here.end - start);
                let place = owned.start + start - before;
                let parameters = self.weights.values().narrow(0, place, count)?;
                let band = masters.narrow(start, count)?.values(&parameters)?;
                values.extend(band.on_host(&(0..count))?);
            }
            before += owned.len();
        }
        if values.len() != range.len() {
            bail!("masters {range:?} of {before}")
        }
        Ok(values)
    }
}

fn runs(weights: &Weights, owned: &[Range<usize>], do_layer_norm_weight_decay: bool) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    let (mut before, mut moments) = (0, 0);
    for owned in owned {
        for part in weights.holding().parts().iter().filter(|part| part.learns) {
            let Range { start, end } = intersection(&part.range, owned);
            if start >= end {
                continue;
            }
            let at = before + start - owned.start;
            let continues = |run: &Run| {
                let length = run.range.len();
                [run.range.end, run.at + length, run.moment_at + length] == [start, at, moments]
            };
            if !runs.last().is_some_and(continues) {
                runs.push(Run { range: start..start, at, moment_at: moments, decaying: vec![] });
            }
            if let Some(run) = runs.last_mut() {
                run.range.end = end;
                if part.parameter.role.decays(do_layer_norm_weight_decay) {
                    join(&mut run.decaying, start - run.range.start..end - run.range.start);
                }
            }
            moments += end - start;
        }
        before += owned.len();
        // Padding at the end of the buffers has moments too.
        let last = weights.holding().element_count();
        moments += owned.end.saturating_sub(owned.start.max(last));
    }
    runs
}

/// Adds a range behind others, to the last of them where it goes on.
fn join(ranges: &mut Vec<Range<usize>>, next: Range<usize>) {
    match ranges.last_mut() {
        Some(last) if last.end == next.start => last.end = next.end,
        _ => ranges.push(next),
    }
}
