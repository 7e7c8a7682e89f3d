//! AdamW's state over the flat buffers, with NeMo's weight-decay groups: moments and, beside
//! half-precision parameters, masters.

use crate::kernels::optimizer::{AdamW, Buffers, step};
use crate::model::weights::Weights;
use crate::spec::optimization::Optimizer;
use candle_core::{Device, Result, Tensor};
use std::ops::Range;

/// The moments of every parameter, which parameters decay, and the parameters that are changed.
#[derive(Debug)]
pub struct OptimizerState {
    settings: Optimizer,
    /// Neighbouring parameters that decay alike.
    runs: Vec<(Range<usize>, bool)>,
    /// The parameters in fp32, when the model's own are in half precision.
    masters: Option<Tensor>,
    first_moment: Tensor,
    second_moment: Tensor,
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
    /// State before the first step; `start` are the parameters `[elements]`, not rounded.
    pub fn new(settings: &Optimizer, weights: &Weights, start: &Tensor) -> Result<OptimizerState> {
        let (formats, device) = (weights.formats(), weights.device());
        let zeros = || Tensor::zeros(weights.values().dims(), formats.gradients(), device);
        let (first_moment, second_moment) = (zeros()?, zeros()?);
        let runs = runs(weights, settings.do_layer_norm_weight_decay);
        let masters = if formats.parameters == formats.gradients() {
            None
        } else {
            Some(start.to_dtype(formats.gradients())?.to_device(device)?)
        };
        let settings = settings.clone();
        Ok(OptimizerState { settings, runs, masters, first_moment, second_moment })
    }

    /// State with these moments, in the table's order, and the parameters `start` that go with them.
    pub fn with_moments(
        settings: &Optimizer,
        weights: &Weights,
        start: &Tensor,
        [first, second]: [Vec<f32>; 2],
    ) -> Result<OptimizerState> {
        let tensor = |values: Vec<f32>| {
            Tensor::from_vec(values, weights.values().dims(), &Device::Cpu)?
                .to_device(weights.device())
        };
        let (first_moment, second_moment) = (tensor(first)?, tensor(second)?);
        Ok(OptimizerState {
            first_moment,
            second_moment,
            ..OptimizerState::new(settings, weights, start)?
        })
    }

    /// The two moments, `[elements]` each.
    pub fn moments(&self) -> [&Tensor; 2] {
        [&self.first_moment, &self.second_moment]
    }

    /// The parameters as they are changed, `[elements]`: masters, if there are any.
    pub fn parameters<'a>(&'a self, weights: &'a Weights) -> &'a Tensor {
        self.masters.as_ref().unwrap_or(weights.values())
    }

    /// Changes every parameter by its gradient.
    pub fn step(&self, weights: &Weights, by: StepSettings) -> Result<()> {
        for (range, decays) in &self.runs {
            let part = |buffer: &Tensor| buffer.narrow(0, range.start, range.len());
            let copy = self.masters.as_ref().map(|_| part(weights.values())).transpose()?;
            let buffers = Buffers {
                parameters: &part(self.parameters(weights))?,
                gradients: &part(weights.gradients())?,
                first_moment: &part(&self.first_moment)?,
                second_moment: &part(&self.second_moment)?,
                copy: copy.as_ref(),
            };
            let settings = AdamW {
                learning_rate: by.learning_rate,
                betas: self.settings.betas,
                epsilon: self.settings.eps,
                weight_decay: if *decays { self.settings.weight_decay } else { 0.0 },
                step: by.number,
                gradient_scale: by.gradient_scale,
            };
            step(&buffers, &settings)?;
        }
        weights.values_changed()
    }
}

fn runs(weights: &Weights, do_layer_norm_weight_decay: bool) -> Vec<(Range<usize>, bool)> {
    let mut runs: Vec<(Range<usize>, bool)> = Vec::new();
    for (parameter, range) in weights.parameters() {
        let decays = parameter.role.decays(do_layer_norm_weight_decay);
        match runs.last_mut() {
            Some((last, alike)) if *alike == decays => last.end = range.end,
            _ => runs.push((range, decays)),
        }
    }
    runs
}
