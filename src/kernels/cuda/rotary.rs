//! Rotary positions.

use super::context::{format, of};
use super::{check, ffi, hold, size};
use crate::kernels::Result;
use crate::kernels::attention::Shape;
use crate::kernels::timing::Part;
use candle_core::Tensor;

/// Turns queries and keys of `qkv` in place; `angles` is (cos, sin) `[positions, pairs, 2]` in f32.
pub(in crate::kernels) fn turn(
    qkv: &Tensor,
    shape: &Shape,
    angles: &Tensor,
    positions: &[u32],
    sign: f64,
) -> Result<()> {
    let context = of(qkv)?;
    let positions_there = context.words(positions)?;
    let pairs = angles.dim(1)?;
    let (rows, angles, places) = (hold(qkv)?, hold(angles)?, hold(&positions_there)?);
    let work = context.work(Part::Other)?;
    let code = ffi::sft_rotary(
        work.stream(),
        format(qkv.dtype())?,
        rows.at(),
        angles.at(),
        places.at(),
        size(positions.len()),
        size(shape.groups),
        size(shape.heads / shape.groups + 1),
        size(shape.head_dim),
        size(pairs),
        sign as f32,
    );
    check("rotary positions", code)
}
