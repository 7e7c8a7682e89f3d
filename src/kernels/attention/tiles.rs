//! Matrix products of eight by eight numbers, in registers, and the layouts that they read.
//!
//! Eight queries are worked on at once, one per vector lane, so that the softmax needs no sums
//! across lanes. A *panel* is `[keys, 8]`: a row per key, a lane per query.

#![expect(clippy::inline_always, reason = "parts of loops that are built once per instruction set")]
#![expect(
    clippy::needless_range_loop,
    reason = "counted loops over tiles are what becomes vectors"
)]

use crate::kernels::real::Real;

/// Queries per panel, keys and channels per tile.
pub(super) const LANES: usize = 8;

/// A tile of numbers: rows of eight.
type Tile<T> = [[T; LANES]; LANES];

/// Rows of one head inside a wider tensor.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a, T> {
    /// The tensor's values, from the first row on.
    pub(super) values: &'a [T],
    /// Distance between rows.
    pub(super) stride: usize,
    /// Where in a row the head starts.
    pub(super) offset: usize,
    /// The head's width.
    pub(super) width: usize,
}

impl<'a, T> Rows<'a, T> {
    #[inline(always)]
    pub(super) fn row(&self, row: usize) -> &'a [T] {
        &self.values[row * self.stride + self.offset..][..self.width]
    }
}

/// Copies rows `first..first + count`, times `factor`, to `to` `[count rounded up to 8, padded]`;
/// what is added is zero.
#[inline(always)]
pub(super) fn pack_rows<T: Real>(
    to: &mut Vec<T>,
    rows: Rows<'_, T>,
    first: usize,
    count: usize,
    factor: T,
) {
    let padded = rows.width.next_multiple_of(LANES);
    let needed = count.next_multiple_of(LANES) * padded;
    if to.len() < needed {
        to.resize(needed, T::ZERO);
    }
    to[count * padded..needed].fill(T::ZERO);
    for (row, to) in to.chunks_exact_mut(padded).take(count).enumerate() {
        let (to, padding) = to.split_at_mut(rows.width);
        for (to, from) in to.iter_mut().zip(rows.row(first + row)) {
            *to = *from * factor;
        }
        padding.fill(T::ZERO);
    }
}

/// Turns eight packed rows `[8, padded]` into lanes `[padded, 8]`.
#[inline(always)]
pub(super) fn pack_lanes<T: Real>(to: &mut Vec<T>, rows: &[T]) {
    let padded = rows.len() / LANES;
    to.resize(rows.len(), T::ZERO);
    for (lane, row) in rows.chunks_exact(padded).enumerate() {
        for (to, from) in to.chunks_exact_mut(LANES).zip(row) {
            to[lane] = *from;
        }
    }
}

/// `panel[key][query] = Σ_channel rows[key][channel] · lanes[channel][query]`.
#[inline(always)]
pub(super) fn dots<T: Real>(panel: &mut [T], rows: &[T], lanes: &[T]) {
    let (lanes, _) = lanes.as_chunks::<LANES>();
    let padded = lanes.len();
    let (panels, _) = panel.as_chunks_mut::<LANES>();
    let (tiles, _) = panels.as_chunks_mut::<LANES>();
    for (panel, block) in tiles.iter_mut().zip(rows.chunks_exact(LANES * padded)) {
        let rows = eight_rows(block, padded);
        let mut tile: Tile<T> = [[T::ZERO; LANES]; LANES];
        for (channel, lane) in lanes.iter().enumerate() {
            for key in 0..LANES {
                let factor = rows[key][channel];
                for query in 0..LANES {
                    tile[key][query] = factor.fma(lane[query], tile[key][query]);
                }
            }
        }
        *panel = tile;
    }
}

/// Eight rows as slices of one length, so that the compiler sees one bound for all.
#[inline(always)]
fn eight_rows<T>(block: &[T], width: usize) -> [&[T]; LANES] {
    [0, 1, 2, 3, 4, 5, 6, 7].map(|row| &block[row * width..][..width])
}

/// `Σ_key panel[key][query] · rows[key][channel]` for the eight channels from `channel` on.
#[inline(always)]
pub(super) fn combine<T: Real>(panel: &[T], rows: &[T], padded: usize, channel: usize) -> Tile<T> {
    let (panel, _) = panel.as_chunks::<LANES>();
    let mut tile: Tile<T> = [[T::ZERO; LANES]; LANES];
    for (weights, row) in panel.iter().zip(rows.chunks_exact(padded)) {
        let Some(row) = row[channel..].first_chunk::<LANES>() else { break };
        for query in 0..LANES {
            for lane in 0..LANES {
                tile[query][lane] = weights[query].fma(row[lane], tile[query][lane]);
            }
        }
    }
    tile
}

/// `sums[key][channel] += Σ_query panel[key][query] · rows[query][channel]`, `rows` being `[8, padded]`.
#[inline(always)]
pub(super) fn spread<T: Real>(sums: &mut [T], panel: &[T], rows: &[T]) {
    let padded = rows.len() / LANES;
    let (panels, _) = panel.as_chunks::<LANES>();
    for (sums, weights) in sums.chunks_exact_mut(4 * padded).zip(panels.as_chunks::<4>().0) {
        let rows = eight_rows(rows, padded);
        for channel in (0..padded).step_by(LANES) {
            spread_tile(sums, weights, rows.map(|row| &row[channel..]), channel);
        }
    }
}

/// Four keys by eight channels of [`spread`].
#[inline(always)]
fn spread_tile<T: Real>(
    sums: &mut [T],
    weights: &[[T; LANES]; 4],
    rows: [&[T]; LANES],
    channel: usize,
) {
    let padded = sums.len() / 4;
    for key in 0..4 {
        let Some(sum) = sums[key * padded + channel..].first_chunk_mut::<LANES>() else { return };
        let mut total = *sum;
        for query in 0..LANES {
            let Some(row) = rows[query].first_chunk::<LANES>() else { return };
            for lane in 0..LANES {
                total[lane] = weights[key][query].fma(row[lane], total[lane]);
            }
        }
        *sum = total;
    }
}

/// Zeroes a panel's numbers whose key comes after the query: only its last eight keys have any.
#[inline(always)]
pub(super) fn hide_later_keys<T: Real>(panel: &mut [T], hidden: T) {
    let last = panel.len() - LANES * LANES;
    for (key, row) in panel[last..].chunks_exact_mut(LANES).enumerate() {
        row[..key].fill(hidden);
    }
}
