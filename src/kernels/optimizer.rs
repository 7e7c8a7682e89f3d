//! AdamW over flat buffers, one pass (Loshchilov and Hutter, "Decoupled weight decay regularization").

use super::Result;
use super::carrier::{expect_shape, on_real, read, update, update_halves};
use super::launch::vectorized;
use super::masters::{Masters, change_joined};
use super::real::Real;
use candle_core::{Tensor, bail};
use rayon::prelude::*;
use std::ops::Range;

/// Numbers per task.
const BLOCK: usize = 1 << 14;

/// The constants of one AdamW step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Learning rate of this step.
    pub learning_rate: f64,
    /// Decay rates of the first and second moment.
    pub betas: [f64; 2],
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Decoupled weight decay: a parameter first loses `learning_rate * weight_decay` of itself, where
    /// [`Buffers::decaying`] has it.
    pub weight_decay: f64,
    /// This step's number, from 1, for the bias corrections.
    pub step: u64,
    /// Gradients are multiplied with this first (1 / learned tokens, times the clipping factor).
    pub gradient_scale: f64,
}

/// The buffers of a step, of equal shape, each in a storage of its own; all but the gradients change.
#[derive(Clone, Copy, Debug)]
pub struct Buffers<'a> {
    /// The parameters as the model has them.
    pub parameters: &'a Tensor,
    /// What stands beside them, so that small changes add up. A step changes the unrounded values,
    /// and rounds them to the parameters.
    pub masters: &'a Masters,
    /// Their gradients.
    pub gradients: &'a Tensor,
    /// Running mean of the gradients.
    pub first_moment: &'a Tensor,
    /// Running mean of the squared gradients.
    pub second_moment: &'a Tensor,
    /// The elements to which weight decay applies, ascending; no two ranges touch.
    pub decaying: &'a [Range<usize>],
}

/// One step:
/// `m = β₁m + (1-β₁)g`, `v = β₂v + (1-β₂)g²`, `p = p·(1 - ηλ) - η · m̂ / (√v̂ + ε)`,
/// with `m̂ = m / (1-β₁ᵗ)` and `v̂ = v / (1-β₂ᵗ)`.
pub fn step(buffers: &Buffers<'_>, settings: &AdamW) -> Result<()> {
    let shape = buffers.parameters.dims();
    expect_shape("gradients", buffers.gradients, shape)?;
    expect_shape("first_moment", buffers.first_moment, shape)?;
    expect_shape("second_moment", buffers.second_moment, shape)?;
    buffers.masters.expect_beside(buffers.parameters)?;
    let bounds: Vec<usize> = buffers.decaying.iter().flat_map(|one| [one.start, one.end]).collect();
    if !bounds.is_sorted()
        || bounds.last().is_some_and(|end| *end > buffers.parameters.elem_count())
    {
        bail!("decaying ranges {:?} of {shape:?} elements", buffers.decaying)
    }
    #[cfg(feature = "cuda")]
    if buffers.parameters.device().is_cuda() {
        return super::cuda::optimizer::step(buffers, settings);
    }
    match buffers.masters {
        Masters::Nothing => on_real!(buffers.parameters, T => {
            step_of::<T>(buffers.parameters, buffers, settings)
        }),
        Masters::Whole(values) => {
            step_of::<f32>(values, buffers, settings)?;
            super::reduce::put(buffers.parameters, values)
        }
        Masters::Remainders(rest) => step_joined(rest, buffers, settings),
    }
}

/// A step of `values`.
fn step_of<T: Real>(values: &Tensor, buffers: &Buffers<'_>, settings: &AdamW) -> Result<()> {
    update::<T, _>(values, |values| {
        for_pieces::<T>(buffers, settings, |range, g, m, v, by| {
            values[range]
                .par_chunks_mut(BLOCK)
                .zip(g.par_chunks(BLOCK))
                .zip(m.par_chunks_mut(BLOCK))
                .zip(v.par_chunks_mut(BLOCK))
                .for_each(|(((p, g), m), v)| block_step(p, g, m, v, by));
        })
    })?
}

/// A step of bf16 parameters with their remainders.
fn step_joined(rest: &Tensor, buffers: &Buffers<'_>, settings: &AdamW) -> Result<()> {
    update_halves([buffers.parameters, rest], |copies, rest| {
        for_pieces::<f32>(buffers, settings, |range, g, m, v, by| {
            copies[range.clone()]
                .par_chunks_mut(BLOCK)
                .zip(rest[range].par_chunks_mut(BLOCK))
                .zip(g.par_chunks(BLOCK))
                .zip(m.par_chunks_mut(BLOCK))
                .zip(v.par_chunks_mut(BLOCK))
                .for_each(|((((copies, rest), g), m), v)| {
                    change_joined(copies, rest, |p| block_step(p, g, m, v, by));
                });
        })
    })?
}

/// Calls `work(range, gradients, first moments, second moments, constants)` for the ranges in which
/// all elements decay or none does.
fn for_pieces<T: Real>(
    buffers: &Buffers<'_>,
    settings: &AdamW,
    mut work: impl FnMut(Range<usize>, &[T], &mut [T], &mut [T], Factors<T>),
) -> Result<()> {
    let gradients = read::<T>(buffers.gradients)?;
    update::<T, _>(buffers.first_moment, |first| {
        update::<T, _>(buffers.second_moment, |second| {
            for (range, decays) in pieces(buffers.decaying, gradients.len()) {
                let (first, second) = (&mut first[range.clone()], &mut second[range.clone()]);
                let by = Factors::new(settings, decays);
                work(range.clone(), &gradients[range], first, second, by);
            }
        })
    })?
}

/// The `decaying` ranges of `count` elements and those between them, with whether they decay.
fn pieces(decaying: &[Range<usize>], count: usize) -> Vec<(Range<usize>, bool)> {
    let (mut pieces, mut end) = (Vec::new(), 0);
    for range in decaying {
        pieces.extend([(end..range.start, false), (range.clone(), true)]);
        end = range.end;
    }
    pieces.push((end..count, false));
    pieces.retain(|(range, _)| !range.is_empty());
    pieces
}

/// The constants in the buffers' own precision.
#[derive(Clone, Copy)]
struct Factors<T> {
    gradient: T,
    beta: [T; 2],
    rest: [T; 2],
    keep: T,
    step_size: T,
    root_scale: T,
    epsilon: T,
}

impl<T: Real> Factors<T> {
    fn new(settings: &AdamW, decays: bool) -> Self {
        let weight_decay = if decays { settings.weight_decay } else { 0.0 };
        let [beta_1, beta_2] = settings.betas;
        let correct = |beta: f64| 1.0 - beta.powf(settings.step as f64);
        Factors {
            gradient: T::of(settings.gradient_scale),
            beta: [T::of(beta_1), T::of(beta_2)],
            rest: [T::of(1.0 - beta_1), T::of(1.0 - beta_2)],
            keep: T::of(1.0 - settings.learning_rate * weight_decay),
            step_size: T::of(settings.learning_rate / correct(beta_1)),
            root_scale: T::of(1.0 / correct(beta_2).sqrt()),
            epsilon: T::of(settings.epsilon),
        }
    }
}

vectorized! {
    fn block_step<T: Real>(p: &mut [T], g: &[T], m: &mut [T], v: &mut [T], by: Factors<T>) {
        for (((p, g), m), v) in p.iter_mut().zip(g).zip(m).zip(v) {
            let gradient = *g * by.gradient;
            *m = by.beta[0].fma(*m, by.rest[0] * gradient);
            *v = by.beta[1].fma(*v, by.rest[1] * gradient * gradient);
            let divisor = v.root().fma(by.root_scale, by.epsilon);
            *p = by.keep.fma(*p, -(by.step_size * *m / divisor));
        }
    }
}
