//! Matrix products of eight by eight numbers, in registers, and the layouts that they read.
//!
//! Eight queries are worked on at once, one per vector lane, so that the softmax needs no sums
//! across lanes. A *panel* is `[keys, 8]`: a row per key, a lane per query.

#![expect(clippy::inline_always, reason = "parts of loops that are built once per instruction set")]

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
    let (to, _) = to.as_chunks_mut::<LANES>();
    let (tiles, _) = to.as_chunks_mut::<LANES>();
    let rows = eight_rows(rows, padded);
    for (block, tile) in tiles.iter_mut().enumerate() {
        let part = |row: usize| &rows[row][block * LANES..][..LANES];
        let part = [part(0), part(1), part(2), part(3), part(4), part(5), part(6), part(7)];
        for (channel, to) in tile.iter_mut().enumerate() {
            for (to, from) in to.iter_mut().zip(&part) {
                *to = from[channel];
            }
        }
    }
}

/// `sums += factor · row`.
#[inline(always)]
fn add_scaled<T: Real>(sums: &mut [T; LANES], factor: T, row: &[T; LANES]) {
    for (sum, value) in sums.iter_mut().zip(row) {
        *sum = factor.fma(*value, *sum);
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
        *panel = dots_tile(eight_rows(block, padded), lanes);
    }
}

/// Eight keys of [`dots`].
#[inline(always)]
fn dots_tile<T: Real>(rows: [&[T]; LANES], lanes: &[[T; LANES]]) -> Tile<T> {
    let mut tile = [[T::ZERO; LANES]; LANES];
    for (channel, lane) in lanes.iter().enumerate() {
        for (sums, row) in tile.iter_mut().zip(&rows) {
            add_scaled(sums, row[channel], lane);
        }
    }
    tile
}

/// Eight rows as slices of one length, so that the compiler sees one bound for all.
#[inline(always)]
fn eight_rows<T>(block: &[T], width: usize) -> [&[T]; LANES] {
    let row = |row: usize| &block[row * width..][..width];
    // An array's `map` is not inlined here, and then not built for these instructions.
    [row(0), row(1), row(2), row(3), row(4), row(5), row(6), row(7)]
}

/// `Σ_key panel[key][query] · rows[key][channel]` for the eight channels from `channel` on.
#[inline(always)]
pub(super) fn combine<T: Real>(panel: &[T], rows: &[T], padded: usize, channel: usize) -> Tile<T> {
    let (panel, _) = panel.as_chunks::<LANES>();
    let mut tile = [[T::ZERO; LANES]; LANES];
    for (weights, row) in panel.iter().zip(rows.chunks_exact(padded)) {
        let Some(row) = row[channel..].first_chunk::<LANES>() else { break };
        for (sums, weight) in tile.iter_mut().zip(weights) {
            add_scaled(sums, *weight, row);
        }
    }
    tile
}

/// `sums[key][channel] += Σ_query panel[key][query] · rows[query][channel]`, `rows` being `[8, padded]`.
#[inline(always)]
pub(super) fn spread<T: Real>(sums: &mut [T], panel: &[T], rows: &[T]) {
    let (panel, _) = panel.as_chunks::<LANES>();
    let (sums, _) = sums.as_chunks_mut::<LANES>();
    let (rows, _) = rows.as_chunks::<LANES>();
    let per_row = rows.len() / LANES;
    for channel in 0..per_row {
        let at = |query: usize| rows[query * per_row + channel];
        let tile = [at(0), at(1), at(2), at(3), at(4), at(5), at(6), at(7)];
        for (sum, weights) in sums[channel..].iter_mut().step_by(per_row).zip(panel) {
            spread_one(sum, weights, &tile);
        }
    }
}

/// One key's part of [`spread`]; two sums, so that additions do not wait for each other.
#[inline(always)]
fn spread_one<T: Real>(sum: &mut [T; LANES], weights: &[T; LANES], tile: &Tile<T>) {
    let (mut even, mut odd) = (*sum, [T::ZERO; LANES]);
    let ([w0, w1, w2, w3, w4, w5, w6, w7], [r0, r1, r2, r3, r4, r5, r6, r7]) = (weights, tile);
    for (weight, row) in [(w0, r0), (w2, r2), (w4, r4), (w6, r6)] {
        add_scaled(&mut even, *weight, row);
    }
    for (weight, row) in [(w1, r1), (w3, r3), (w5, r5), (w7, r7)] {
        add_scaled(&mut odd, *weight, row);
    }
    add_scaled(&mut even, T::ONE, &odd);
    *sum = even;
}

/// Zeroes a panel's numbers whose key comes after the query: only its last eight keys have any.
#[inline(always)]
pub(super) fn hide_later_keys<T: Real>(panel: &mut [T], hidden: T) {
    let last = panel.len() - LANES * LANES;
    for (key, row) in panel[last..].chunks_exact_mut(LANES).enumerate() {
        row[..key].fill(hidden);
    }
}

/// `a·b` in interleaved sums, so that it vectorises.
#[inline(always)]
pub(super) fn dot<T: Real>(a: &[T], b: &[T]) -> T {
    let mut sums = [T::ZERO; LANES];
    let (a_chunks, b_chunks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest = a_chunks.remainder().iter().zip(b_chunks.remainder());
    for (a, b) in a_chunks.zip(b_chunks) {
        for lane in 0..LANES {
            sums[lane] = a[lane].fma(b[lane], sums[lane]);
        }
    }
    let tail: T = rest.map(|(a, b)| *a * *b).sum();
    let half = [0, 1, 2, 3].map(|lane| sums[lane] + sums[lane + 4]);
    half[0] + half[2] + (half[1] + half[3]) + tail
}

/// Writes the first `width` numbers of a tile's row, times `factor`.
#[inline(always)]
pub(super) fn store<T: Real>(to: &mut [T], row: &[T; LANES], factor: T, width: usize) {
    // Whole rows as one vector; the loop below is for what is left of a head.
    if let (Some(to), true) = (to.first_chunk_mut::<LANES>(), width >= LANES) {
        for (to, value) in to.iter_mut().zip(row) {
            *to = *value * factor;
        }
        return;
    }
    for (to, value) in to.iter_mut().zip(row).take(width) {
        *to = *value * factor;
    }
}
