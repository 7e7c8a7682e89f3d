//! Rotary positions: the first channels of every query and key head turn with the token's position.
//!
//! Su et al., "RoFormer"; halves form as in GPT-NeoX, NeMo and Hugging Face's LLaMA: channel `i`
//! is paired with channel `i + rotated/2`.

use super::Result;
use super::attention::Shape;
use super::carrier::{expect_shape, on_real, update};
use super::launch::rows_per_block;
use super::real::Real;
use candle_core::{Tensor, bail};
use rayon::prelude::*;

/// Cosines and sines of every position and pair of channels.
#[derive(Clone, Debug)]
pub struct Table {
    /// `[positions, rotated / 2]`: (cos, sin).
    angles: Vec<(f64, f64)>,
    /// Channels per head that turn; even.
    rotated: usize,
    /// The angles on the GPU where they were last used, `[positions, rotated / 2, 2]` in f32.
    #[cfg(feature = "cuda")]
    there: std::sync::OnceLock<Tensor>,
}

/// What a table is made from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rotary {
    /// Channels per head that turn: `head_dim` times `rotary_percentage`; even.
    pub rotated: usize,
    /// Base of the angles, 10000 as published.
    pub base: f64,
    /// Positions are divided by this: `seq_len_interpolation_factor`, or 1.
    pub interpolation: f64,
}

impl Table {
    /// The table for positions `0..positions`: pair `i` turns by
    /// `position / interpolation / base^(2i / rotated)`.
    pub fn new(positions: usize, rotary: &Rotary) -> Result<Table> {
        let Rotary { rotated, base, interpolation } = *rotary;
        if rotated % 2 != 0 {
            bail!("rotary positions turn pairs of channels, but {rotated} channels is odd")
        }
        let angle = |position: usize, pair: usize| {
            position as f64 / interpolation / base.powf(2.0 * pair as f64 / rotated as f64)
        };
        let angles = (0..positions)
            .flat_map(|position| (0..rotated / 2).map(move |pair| (position, pair)))
            .map(|(position, pair)| angle(position, pair).sin_cos())
            .map(|(sin, cos)| (cos, sin))
            .collect();
        Ok(Table {
            angles,
            rotated,
            #[cfg(feature = "cuda")]
            there: std::sync::OnceLock::new(),
        })
    }

    /// The angles on a GPU, sent when they are first asked for; a table serves one device.
    #[cfg(feature = "cuda")]
    fn on_device(&self, device: &candle_core::Device) -> Result<&Tensor> {
        if self.there.get().is_none() {
            let flat: Vec<f32> =
                self.angles.iter().flat_map(|(cos, sin)| [*cos as f32, *sin as f32]).collect();
            let pairs = self.rotated / 2;
            let shape = (self.angles.len() / pairs.max(1), pairs, 2);
            let angles = Tensor::from_vec(flat, shape, device)?;
            // Another thread may have been first: its angles are the same.
            let _ = self.there.set(angles);
        }
        match self.there.get() {
            Some(angles) => Ok(angles),
            None => bail!("the rotary table was not sent"),
        }
    }
}

/// Turns the queries and keys of `qkv` `[tokens, (heads + 2·groups)·head_dim]` in place.
pub fn forward(qkv: &Tensor, shape: &Shape, table: &Table, positions: &[u32]) -> Result<()> {
    turn(qkv, shape, table, positions, 1.0)
}

/// Turns gradients back, in place: a rotation's transpose is the opposite rotation.
pub fn backward(dqkv: &Tensor, shape: &Shape, table: &Table, positions: &[u32]) -> Result<()> {
    turn(dqkv, shape, table, positions, -1.0)
}

fn turn(qkv: &Tensor, shape: &Shape, table: &Table, positions: &[u32], sign: f64) -> Result<()> {
    let pairs = table.rotated / 2;
    expect_shape("qkv", qkv, &[positions.len(), shape.qkv_width()])?;
    if table.rotated > shape.head_dim {
        bail!("{} channels turn, but a head has {}", table.rotated, shape.head_dim)
    }
    if let Some(position) =
        positions.iter().find(|p| (**p as usize + 1) * pairs > table.angles.len())
    {
        bail!("position {position} is beyond the rotary table")
    }
    if pairs == 0 {
        return Ok(());
    }
    #[cfg(feature = "cuda")]
    if qkv.device().is_cuda() {
        return super::cuda::rotary::turn(
            qkv,
            shape,
            table.on_device(qkv.device())?,
            positions,
            sign,
        );
    }
    on_real!(qkv, T => update::<T, _>(qkv, |qkv| {
        qkv.par_chunks_mut(shape.qkv_width())
            .zip(positions)
            .with_min_len(rows_per_block(shape.qkv_width()))
            .for_each(|(row, position)| {
                let first = *position as usize * pairs;
                turn_row(row, shape, &table.angles[first..first + pairs], sign);
            });
    }))
}

/// Turns the heads of one token; a group holds its query heads, then its key, then its value.
fn turn_row<T: Real>(row: &mut [T], shape: &Shape, angles: &[(f64, f64)], sign: f64) {
    let turning = shape.heads / shape.groups + 1;
    for group in row.chunks_exact_mut((turning + 1) * shape.head_dim) {
        for head in group.chunks_exact_mut(shape.head_dim).take(turning) {
            let (first, second) = head.split_at_mut(angles.len());
            for ((first, second), (cos, sin)) in first.iter_mut().zip(second).zip(angles) {
                let (cos, sin) = (T::of(*cos), T::of(sign * *sin));
                (*first, *second) = (*first * cos - *second * sin, *second * cos + *first * sin);
            }
        }
    }
}
