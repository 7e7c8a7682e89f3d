//! AdamW over flat buffers.

use super::context::{format, of};
use super::{address, check, expect_f32, ffi, hold, hold_optional};
use crate::kernels::Result;
use crate::kernels::optimizer::{AdamW, Buffers};
use crate::kernels::timing::Part;

/// One step; see the CPU's.
pub(in crate::kernels) fn step(buffers: &Buffers<'_>, settings: &AdamW) -> Result<()> {
    expect_f32("the buffer of parameters", buffers.parameters)?;
    expect_f32("the gradient", buffers.gradients)?;
    expect_f32("the first moment", buffers.first_moment)?;
    expect_f32("the second moment", buffers.second_moment)?;
    let context = of(buffers.parameters)?;
    let [beta_1, beta_2] = settings.betas;
    let correct = |beta: f64| 1.0 - beta.powf(settings.step as f64);
    let by = ffi::AdamW {
        gradient: settings.gradient_scale as f32,
        betas: [beta_1 as f32, beta_2 as f32],
        rests: [(1.0 - beta_1) as f32, (1.0 - beta_2) as f32],
        keep: (1.0 - settings.learning_rate * settings.weight_decay) as f32,
        step_size: (settings.learning_rate / correct(beta_1)) as f32,
        root_scale: (1.0 / correct(beta_2).sqrt()) as f32,
        epsilon: settings.epsilon as f32,
    };
    let copy_format = format(buffers.copy.unwrap_or(buffers.parameters).dtype())?;
    let (parameters, gradients) = (hold(buffers.parameters)?, hold(buffers.gradients)?);
    let (first, second) = (hold(buffers.first_moment)?, hold(buffers.second_moment)?);
    let copy = hold_optional(buffers.copy)?;
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
        buffers.parameters.elem_count() as i64,
        address(decaying.as_ref()),
        2 * buffers.decaying.len() as i64,
        &by,
    );
    check("AdamW", code)
}
