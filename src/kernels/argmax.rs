//! The largest number of each row, for greedy decoding.

use super::Result;
use super::carrier::{on_real, read};
use super::launch::vectorized;
use super::real::Real;
use candle_core::{Tensor, bail};
use rayon::prelude::*;

/// Numbers that are looked at together.
const BLOCK: usize = 1024;
/// Interleaved maxima, so that they vectorise.
const LANES: usize = 16;

/// Of each row of `[rows, width]` the column of the largest number among its first `columns`, the
/// lowest among equals; never the row's `forbidden` one. None where one of these numbers is NaN, or
/// none that is allowed is above minus infinity.
pub fn forward(
    rows: &Tensor,
    columns: usize,
    forbidden: &[Option<u32>],
) -> Result<Vec<Option<u32>>> {
    let (count, width) = rows.dims2()?;
    let columns = columns.min(width);
    if forbidden.len() != count {
        bail!("{} forbidden columns for {count} rows", forbidden.len())
    }
    #[cfg(feature = "cuda")]
    if rows.device().is_cuda() {
        return super::cuda::argmax::forward(rows, columns, forbidden);
    }
    on_real!(rows, T => {
        let values = read::<T>(rows)?;
        let values: &[T] = &values;
        let row = |(row, forbidden): (usize, &Option<u32>)| {
            largest(&values[row * width..][..columns], *forbidden)
        };
        Ok(forbidden.par_iter().enumerate().map(row).collect())
    })
}

/// [`forward`] of one row, all of it.
pub fn of_row(row: &[f32], forbidden: Option<u32>) -> Option<u32> {
    largest(row, forbidden)
}

fn largest<T: Real>(row: &[T], forbidden: Option<u32>) -> Option<u32> {
    let hole = forbidden.map_or(row.len(), |column| row.len().min(column as usize));
    let (before, rest) = row.split_at(hole);
    if rest.first().is_some_and(|value| value.is_not_a_number()) {
        return None;
    }
    let after = rest.get(1..).unwrap_or_default();
    let (first, at) = largest_of(before)?;
    let (second, behind) = largest_of(after)?;
    let column = if second > first { behind.map(|at| hole + 1 + at) } else { at };
    column.map(|column| column as u32)
}

vectorized! {
    /// The largest number and its lowest place, which is none where all are minus infinity; none
    /// where one is NaN.
    fn largest_of<T: Real>(row: &[T]) -> Option<(T, Option<usize>)> {
        let mut best = (T::of(f64::NEG_INFINITY), None);
        for (number, block) in row.chunks(BLOCK).enumerate() {
            let mut lanes = [T::of(f64::NEG_INFINITY); LANES];
            let mut broken = [0_u32; LANES];
            let packs = block.chunks_exact(LANES);
            let rest = packs.remainder();
            for pack in packs {
                for lane in 0..LANES {
                    lanes[lane] = lanes[lane].larger(pack[lane]);
                    broken[lane] |= u32::from(pack[lane].is_not_a_number());
                }
            }
            for (lane, value) in rest.iter().enumerate() {
                lanes[lane] = lanes[lane].larger(*value);
                broken[lane] |= u32::from(value.is_not_a_number());
            }
            if broken.iter().any(|broken| *broken > 0) {
                return None;
            }
            let max = lanes.iter().fold(lanes[0], |max, lane| max.larger(*lane));
            if max > best.0 {
                best = (max, block.iter().position(|value| *value == max).map(|at| number * BLOCK + at));
            }
        }
        Some(best)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rule, number by number.
    fn plain(row: &[f32], forbidden: Option<u32>) -> Option<u32> {
        let (mut best, mut largest) = (None, f32::NEG_INFINITY);
        for (column, value) in row.iter().enumerate() {
            if value.is_nan() {
                return None;
            }
            if *value > largest && forbidden != Some(column as u32) {
                (best, largest) = (Some(column as u32), *value);
            }
        }
        best
    }

    proptest::proptest! {
        #[test]
        fn blocks_and_lanes_change_nothing(
            mut row in proptest::collection::vec(0..40_i32, 0..3000),
            special in proptest::collection::vec((0..3000_usize, 0..4_usize), 0..3),
            forbidden in proptest::option::of(0..3000_u32),
        ) {
            row.dedup();
            let mut row: Vec<f32> = row.into_iter().map(|value| value as f32 - 20.0).collect();
            let kinds = [f32::NEG_INFINITY, f32::INFINITY, -0.0, f32::NAN];
            for (place, kind) in special {
                if let Some(value) = row.get_mut(place) {
                    *value = kinds[kind];
                }
            }
            proptest::prop_assert_eq!(of_row(&row, forbidden), plain(&row, forbidden));
        }
    }

    #[test]
    fn nothing_is_chosen_where_nothing_can_be() {
        let low = f32::NEG_INFINITY;
        assert_eq!(of_row(&[], None), None);
        assert_eq!(of_row(&[low; 40], None), None);
        assert_eq!(of_row(&[3.0], Some(0)), None);
        assert_eq!(of_row(&[3.0, f32::NAN], None), None);
        assert_eq!(of_row(&[3.0, f32::NAN], Some(1)), None);
        assert_eq!(of_row(&[-0.0, 0.0, 0.0], None), Some(0));
        assert_eq!(of_row(&[1.0, 7.0, 7.0], Some(1)), Some(2));
    }
}
