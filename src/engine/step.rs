//! One optimizer step: micro-batches, the sum of their gradients over all ranks, clipping, AdamW.
//!
//! The loss is a sum over learned tokens, its gradient is divided once by their number in the whole
//! step, so the result does not depend on how the step was cut into micro-batches.

use super::fault;
use super::gradient_check;
use super::gradient_norm;
use super::gradient_reduction::GradientReduction;
use super::loss_scale::{LossScaler, Verdict};
use super::optimizer::{OptimizerState, StepSettings};
use super::parameter_gather::ParameterGather;
use super::pipeline::{Learning, Stage};
use super::schedule::learning_rate;
use crate::data::feed;
use crate::data::microbatch::MicroBatch;
use crate::model::Model;
use crate::model::batch::{Batch, Noise};
use crate::parallel::mesh::Mesh;
use crate::spec::fault::Fault;
use crate::spec::optimization::{LossScale, Optimizer};
use std::ops::Range;

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A batch cannot be read.
    #[error("cannot read the batch of step {step}")]
    Data {
        /// The step, from 1.
        step: u64,
        /// Why.
        source: feed::Error,
    },
    /// The computation cannot be carried out.
    #[error("the computation failed")]
    Tensor(#[from] candle_core::Error),
    /// The loss or the gradient is not a number.
    #[error(
        "the {what} of step {step} is {value}: lower model.optim.lr, or look at the data of this step"
    )]
    NotFinite {
        /// `loss` or `gradient norm`.
        what: &'static str,
        /// The step, from 1.
        step: u64,
        /// What it is.
        value: f64,
    },
    /// fp16 cannot hold the gradients.
    #[error(
        "the gradient of step {step} overflows fp16 even without a loss scale: \
         lower model.optim.lr, or set trainer.precision to bf16"
    )]
    Overflow {
        /// The step, from 1.
        step: u64,
    },
    /// There is nothing to learn from.
    #[error(
        "no token of step {step} is learned: look at answer_only_loss and at the rows of the data"
    )]
    NothingLearned {
        /// The step, from 1.
        step: u64,
    },
    /// Gradients got lost.
    #[error("these parameters received no gradient in the first step: {0} (a bug of this program)")]
    NoGradient(String),
}

/// What one rank has of the model and its optimizer.
#[derive(Debug)]
pub struct Trainer {
    /// The rank.
    pub mesh: Mesh,
    /// What it holds of the model.
    pub model: Model,
    /// The state of the parameters that it changes.
    pub optimizer: OptimizerState,
    reduction: GradientReduction,
    settings: Settings,
    loss_scaler: Option<LossScaler>,
    /// Whether every parameter has been seen to receive a gradient.
    gradients_checked: bool,
    /// Where this rank is to fail.
    fault: Option<Fault>,
}

/// What a step depends on beside the data.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The optimizer.
    pub optimizer: Optimizer,
    /// Largest gradient norm; 0 leaves gradients as they are.
    pub gradient_clip_val: f64,
    /// Seed of dropout.
    pub seed: u64,
    /// fp16's loss scale; none in other formats.
    pub loss_scaler: Option<LossScaler>,
}

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome {
    /// Mean loss per learned token, in nats.
    pub loss: f64,
    /// Norm of the mean loss's gradient, before clipping; not finite when fp16 overflowed and the
    /// step changed nothing.
    pub grad_norm: f64,
    /// fp16's loss scale in this step; none in other formats.
    pub loss_scale: Option<f64>,
    /// Learning rate.
    pub learning_rate: f64,
    /// Tokens of the batch.
    pub tokens: u64,
    /// Tokens that were learned from.
    pub learned_tokens: u64,
}

impl Trainer {
    /// A trainer of a whole model on one rank, at any point of a run.
    pub fn new(model: Model, optimizer: OptimizerState, settings: Settings) -> Trainer {
        let mesh = Mesh::single();
        let reduction = GradientReduction::new(&mesh, model.weights(), false);
        Trainer::of_rank(&mesh, model, (optimizer, reduction), settings)
    }

    /// The trainer of a rank of `mesh`; the optimizer's state is that of the elements whose sums
    /// it gets.
    pub fn of_rank(
        mesh: &Mesh,
        model: Model,
        (optimizer, reduction): (OptimizerState, GradientReduction),
        settings: Settings,
    ) -> Trainer {
        let (mesh, loss_scaler) = (mesh.clone(), settings.loss_scaler);
        let (gradients_checked, fault) = (false, None);
        Trainer {
            mesh,
            model,
            optimizer,
            reduction,
            settings,
            loss_scaler,
            gradients_checked,
            fault,
        }
    }

    /// The same trainer that fails where `fault` says, if that is on this rank.
    #[must_use]
    pub fn with_fault(mut self, fault: Option<Fault>) -> Trainer {
        self.fault = fault.filter(|fault| fault.rank == self.mesh.rank);
        self
    }

    /// Where fp16's loss scale stands; none in other formats.
    pub fn loss_scale(&self) -> Option<LossScale> {
        self.loss_scaler.as_ref().map(LossScaler::state)
    }

    /// Runs the step after `done` steps on the micro-batches that `next` gives by number: those of
    /// this rank's replica. The outcome is that of all replicas.
    pub fn step(
        &mut self,
        done: u64,
        micro_batches: usize,
        mut next: impl FnMut(usize) -> Result<MicroBatch, feed::Error>,
    ) -> Result<Outcome, Error> {
        let step = done + 1;
        let scale = self.loss_scaler.as_ref().map_or(1.0, LossScaler::factor);
        let updates = done - self.loss_scale().map_or(0, |state| state.skipped_steps);
        let Trainer { model, reduction, .. } = self;
        model.weights().begin_gradients()?;
        reduction.begin();
        let batches = (0..micro_batches).map(&mut next).collect::<Result<Vec<_>, _>>();
        let batches = batches.map_err(|source| Error::Data { step, source })?;
        let noise = Noise { seed: self.settings.seed, step: done };
        let learning = Learning { noise, gradient_scale: scale };
        let stage = Stage { model, mesh: &self.mesh };
        let fault = self.fault.filter(|fault| fault.step == step);
        let mut reached = |milestone| {
            fault.map_or(Ok(()), fault::strike)?;
            reduction.reached(milestone, model.weights())
        };
        let sums = Sums::of(&batches, stage.learn(&batches, learning, &mut reached)?);
        model.weights().complete_gradients()?;
        reduction.begin_rest(model.weights())?;
        let (sums, squares) = self.over_all_ranks(&sums)?;
        let outcome = self.outcome((step, updates), &sums, squares.sqrt() / scale)?;
        match self.loss_scaler.as_mut().map(|scaler| scaler.judge(outcome.grad_norm)) {
            None | Some(Verdict::Good) => {}
            Some(Verdict::Skipped) => return Ok(outcome),
            Some(Verdict::Hopeless) => return Err(Error::Overflow { step }),
        }
        self.check_gradients()?;
        let clip = self.settings.gradient_clip_val;
        let factor = if clip > 0.0 { (clip / (outcome.grad_norm + 1e-6)).min(1.0) } else { 1.0 };
        let by = StepSettings {
            number: updates + 1,
            learning_rate: outcome.learning_rate,
            gradient_scale: factor / scale / sums.learned_tokens as f64,
        };
        let weights = self.model.weights();
        let mut gather = ParameterGather::new(&self.reduction, weights);
        self.optimizer.step(weights, by, |end| gather.changed_before(end))?;
        gather.finish()?;
        weights.values_changed()?;
        Ok(outcome)
    }

    /// The sums over the micro-batches of all replicas, and the sum of squares of the gradient; with a
    /// distributed optimizer its last sums over the replicas come while the first are squared.
    fn over_all_ranks(&mut self, sums: &Sums) -> Result<(Sums, f64), Error> {
        let Trainer { mesh, model, optimizer, reduction, .. } = self;
        let ready = |range: &Range<usize>| reduction.land(range);
        let squares =
            gradient_norm::sum_of_squares(mesh, model.weights(), optimizer.owned(), ready)?;
        // Those too that another rank has counted.
        reduction.land(&(0..usize::MAX))?;
        // Of the ranks of a replica, one counts what all of them have seen.
        let once =
            |here: bool, value: f64| if here && self.mesh.at.tensor == 0 { value } else { 0.0 };
        let (first, last) = (self.mesh.is_first_stage(), self.mesh.is_last_stage());
        let numbers = [
            once(last, sums.loss),
            once(first, sums.tokens as f64),
            once(first, sums.learned_tokens as f64),
            squares,
        ];
        let all = self.mesh.world.sum_numbers(&numbers)?;
        #[expect(clippy::cast_sign_loss, reason = "counts went in")]
        let [tokens, learned_tokens] = [all[1] as u64, all[2] as u64];
        Ok((Sums { loss: all[0], tokens, learned_tokens }, all[3]))
    }

    /// `updates` is the number of steps so far that were not skipped; `norm` is that of the loss
    /// sum's gradient.
    fn outcome(
        &self,
        (step, updates): (u64, u64),
        sums: &Sums,
        norm: f64,
    ) -> Result<Outcome, Error> {
        if sums.learned_tokens == 0 {
            return Err(Error::NothingLearned { step });
        }
        let share = 1.0 / sums.learned_tokens as f64;
        let outcome = Outcome {
            loss: sums.loss * share,
            grad_norm: norm * share,
            loss_scale: self.loss_scale().map(|state| state.scale),
            learning_rate: learning_rate(&self.settings.optimizer, updates),
            tokens: sums.tokens,
            learned_tokens: sums.learned_tokens,
        };
        // Of a gradient that is not finite in fp16, the loss scale is the judge.
        let overflowed = self.loss_scaler.is_some() && !outcome.grad_norm.is_finite();
        let norm = if overflowed { 0.0 } else { outcome.grad_norm };
        for (what, value) in [("loss", outcome.loss), ("gradient norm", norm)] {
            if !value.is_finite() {
                return Err(Error::NotFinite { what, step, value });
            }
        }
        Ok(outcome)
    }

    /// Sees once that no parameter's gradient is all zeros.
    fn check_gradients(&mut self) -> Result<(), Error> {
        if self.gradients_checked {
            return Ok(());
        }
        let owned = self.optimizer.owned();
        let missing = gradient_check::without_gradient(&self.mesh, self.model.weights(), owned)?;
        if !missing.is_empty() {
            return Err(Error::NoGradient(missing.join(", ")));
        }
        self.gradients_checked = true;
        Ok(())
    }
}

/// Sums over the micro-batches of a step.
#[derive(Debug)]
struct Sums {
    loss: f64,
    tokens: u64,
    learned_tokens: u64,
}

impl Sums {
    fn of(batches: &[MicroBatch], loss: f64) -> Sums {
        let total = |count: fn(&MicroBatch) -> usize| {
            batches.iter().map(|batch| count(batch) as u64).sum::<u64>()
        };
        let (tokens, learned_tokens) = (total(MicroBatch::len), total(MicroBatch::learned_count));
        Sums { loss, tokens, learned_tokens }
    }
}

/// The micro-batch as the model takes it.
pub fn view(batch: &MicroBatch) -> Batch<'_> {
    Batch {
        tokens: &batch.tokens,
        positions: &batch.positions,
        starts: &batch.segments,
        addresses: &batch.global_positions,
    }
}

/// Places and labels of the micro-batch's learned tokens.
pub fn targets(batch: &MicroBatch) -> (Vec<u32>, Vec<u32>) {
    let places = batch.learned();
    let labels = places.iter().map(|place| batch.labels[*place as usize]).collect();
    (places, labels)
}
