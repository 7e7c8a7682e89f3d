//! AdamW over flat buffers, and the unrounded values of bf16 parameters.

use super::context::{format, of};
use super::{address, check, expect_f32, ffi, hold, hold_optional, size};
use crate::kernels::Result;
use crate::kernels::masters::Masters;
use crate::kernels::optimizer::{AdamW, Buffers};
use crate::kernels::timing::Part;
use candle_core::{DType, Tensor};

/// One step; see the CPU's.
pub(in crate::kernels) fn step(buffers: &Buffers<'_>, settings: &AdamW) -> Result<()> {
    match buffers.masters {
        Masters::Nothing => step_of(buffers.parameters, None, buffers, settings),
        Masters::Whole(values) => step_of(values, Some(buffers.parameters), buffers, settings),
        Masters::Remainders(rest) => step_split(rest, buffers, settings),
    }
}

/// A step of `values`, with a rounded `copy` where there is one.
fn step_of(
    values: &Tensor,
    copy: Option<&Tensor>,
    buffers: &Buffers<'_>,
    settings: &AdamW,
) -> Result<()> {
    expect_f32("the buffer of parameters", values)?;
    expect_moments(buffers)?;
    let context = of(values)?;
    let copy_format = format(copy.unwrap_or(values).dtype())?;
    let (parameters, gradients) = (hold(values)?, hold(buffers.gradients)?);
    let (first, second) = (hold(buffers.first_moment)?, hold(buffers.second_moment)?);
    let copy = hold_optional(copy)?;
    let bounds = context.bounds(buffers.decaying)?;
    let decaying = hold_optional(bounds.as_ref())?;
    let work = context.work(Part::Optimizer)?;
    let code = ffi::sft_adamw(
        work.stream(),
        parameters.at(),
        gradients.at(),
        first.at(),
        second.at(),
        copy_format,
        address(copy.as_ref()),
        size(values.elem_count()),
        address(decaying.as_ref()),
        2 * size(buffers.decaying.len()),
        &constants(settings),
    );
    check("AdamW", code)
}

/// A step of bf16 parameters with their remainders.
fn step_split(rest: &Tensor, buffers: &Buffers<'_>, settings: &AdamW) -> Result<()> {
    expect_moments(buffers)?;
    let context = of(buffers.parameters)?;
    let (parameters, rest) = (hold(buffers.parameters)?, hold(rest)?);
    let gradients = hold(buffers.gradients)?;
    let (first, second) = (hold(buffers.first_moment)?, hold(buffers.second_moment)?);
    let bounds = context.bounds(buffers.decaying)?;
    let decaying = hold_optional(bounds.as_ref())?;
    let work = context.work(Part::Optimizer)?;
    let code = ffi::sft_adamw_split(
        work.stream(),
        parameters.at(),
        rest.at(),
        gradients.at(),
        first.at(),
        second.at(),
        size(buffers.parameters.elem_count()),
        address(decaying.as_ref()),
        2 * size(buffers.decaying.len()),
        &constants(settings),
    );
    check("AdamW", code)
}

/// The unrounded values of bf16 `parameters` beside which `rest` stands.
pub(in crate::kernels) fn joined(parameters: &Tensor, rest: &Tensor) -> Result<Tensor> {
    let context = of(parameters)?;
    let values = context.unfilled(parameters.shape(), DType::F32)?;
    let (copies, rest, out) = (hold(parameters)?, hold(rest)?, hold(&values)?);
    let work = context.work(Part::Other)?;
    let count = size(parameters.elem_count());
    let code = ffi::sft_join_masters(work.stream(), copies.at(), rest.at(), out.at(), count);
    check("unrounded parameters", code)?;
    drop(out);
    Ok(values)
}

fn expect_moments(buffers: &Buffers<'_>) -> Result<()> {
    expect_f32("the gradient", buffers.gradients)?;
    expect_f32("the first moment", buffers.first_moment)?;
    expect_f32("the second moment", buffers.second_moment)
}

fn constants(settings: &AdamW) -> ffi::AdamW {
    let [beta_1, beta_2] = settings.betas;
    let correct = |beta: f64| 1.0 - beta.powf(settings.step as f64);
    ffi::AdamW {
        gradient: settings.gradient_scale as f32,
        betas: [beta_1 as f32, beta_2 as f32],
        rests: [(1.0 - beta_1) as f32, (1.0 - beta_2) as f32],
        keep: (1.0 - settings.learning_rate * settings.weight_decay) as f32,
        step_size: (settings.learning_rate / correct(beta_1)) as f32,
        root_scale: (1.0 / correct(beta_2).sqrt()) as f32,
        epsilon: settings.epsilon as f32,
    }
}
