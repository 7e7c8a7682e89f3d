//! Attention's backward: scores remade from the log-sum-exp, then the gradients of q, k and v.

#![expect(clippy::inline_always, reason = "parts of loops that are built once per instruction set")]

use super::tiles::{
    LANES, Rows, combine, dot, dots, hide_later_keys, pack_lanes, pack_rows, spread, store,
};
use super::{ProbabilityDropout, Saved, Shape, check_starts, cut};
use crate::kernels::Result;
use crate::kernels::carrier::{expect_shape, on_real, read, tensor};
use crate::kernels::launch::{unfilled, vectorized};
use crate::kernels::real::Real;
use candle_core::Tensor;
use rayon::prelude::*;

/// Sequences from this length on are cut into a task per group; shorter ones are a task each.
const LONG: usize = 512;

/// The gradient of qkv, in its layout, from `dy` `[tokens, heads·head_dim]`.
///
/// `starts`, `shape` and `dropout` are the forward's. With probabilities `p`, their dropped form `p̃`
/// and `dp̃ = dy·vᵀ`: `dv = p̃ᵀ·dy`, `ds = p ∘ (mask ∘ dp̃ - Σ dy∘y)`, `dq = scale·ds·k`, `dk = scale·dsᵀ·q`.
pub fn backward(
    saved: &Saved,
    starts: &[usize],
    shape: &Shape,
    dropout: Option<&ProbabilityDropout<'_>>,
    dy: &Tensor,
) -> Result<Tensor> {
    let tokens = dy.dim(0)?;
    shape.check()?;
    expect_shape("dy", dy, &[tokens, shape.output_width()])?;
    expect_shape("the saved qkv", &saved.qkv, &[tokens, shape.qkv_width()])?;
    check_starts(starts, tokens)?;
    if let Some(dropout) = dropout {
        dropout.dropout.check(tokens)?;
    }
    #[cfg(feature = "cuda")]
    if dy.device().is_cuda() {
        return crate::kernels::cuda::attention::backward(
            &crate::kernels::cuda::attention::Backward {
                qkv: &saved.qkv,
                output: &saved.output,
                log_sums: &saved.log_sums,
                dy,
            },
            starts,
            shape,
            dropout,
        );
    }
    on_real!(dy, T => {
        let (qkv, output) = (read::<T>(&saved.qkv)?, read::<T>(&saved.output)?);
        let (log_sums, dy) = (read::<T>(&saved.log_sums)?, read::<T>(dy)?);
        let whole = Sequence {
            qkv: &qkv,
            output: &output,
            log_sums: &log_sums,
            dy: &dy,
            first: 0,
            shape,
            dropout,
        };
        let mut dqkv = unfilled::<T>(qkv.len());
        let parts = cut(&mut dqkv, shape.qkv_width(), starts);
        parts.into_par_iter().enumerate().for_each_init(
            Workspace::default,
            |workspace, (index, dqkv)| {
                let sequence = whole.rows(starts[index], starts[index + 1]);
                if starts[index + 1] - starts[index] < LONG {
                    for group in 0..shape.groups {
                        group_backward(&sequence, group, workspace, Columns::inside(shape, group, dqkv));
                    }
                } else {
                    long_backward(&sequence, dqkv);
                }
            },
        );
        tensor(dqkv, (tokens, shape.qkv_width()), saved.qkv.dtype())
    })
}

/// One sequence's rows of the forward and of the output's gradient.
struct Sequence<'a, T> {
    qkv: &'a [T],
    output: &'a [T],
    log_sums: &'a [T],
    dy: &'a [T],
    /// The first row's number in the batch.
    first: usize,
    shape: &'a Shape,
    dropout: Option<&'a ProbabilityDropout<'a>>,
}

impl<T: Real> Sequence<'_, T> {
    /// Rows `from..to` as a sequence of its own.
    fn rows(&self, from: usize, to: usize) -> Self {
        let Shape { heads, .. } = *self.shape;
        let (width, out_width) = (self.shape.qkv_width(), self.shape.output_width());
        Sequence {
            qkv: &self.qkv[from * width..to * width],
            output: &self.output[from * out_width..to * out_width],
            log_sums: &self.log_sums[from * heads..to * heads],
            dy: &self.dy[from * out_width..to * out_width],
            first: from,
            ..*self
        }
    }
}

/// Where the gradient of one group goes.
struct Columns<'a, T> {
    values: &'a mut [T],
    stride: usize,
    /// Where in a row the group starts.
    offset: usize,
}

impl<'a, T> Columns<'a, T> {
    /// Group `group` of whole rows of dqkv.
    fn inside(shape: &Shape, group: usize, values: &'a mut [T]) -> Self {
        let offset = group * (shape.heads_per_group() + 2) * shape.head_dim;
        Columns { values, stride: shape.qkv_width(), offset }
    }
}

/// Groups in parallel, each into memory of its own, then side by side.
fn long_backward<T: Real>(sequence: &Sequence<'_, T>, dqkv: &mut [T]) {
    let shape = sequence.shape;
    let (rows, width) = (dqkv.len() / shape.qkv_width(), shape.qkv_width() / shape.groups);
    let groups: Vec<Vec<T>> = (0..shape.groups)
        .into_par_iter()
        .map(|group| {
            let mut values = unfilled::<T>(rows * width);
            let columns = Columns { values: &mut values, stride: width, offset: 0 };
            group_backward(sequence, group, &mut Workspace::default(), columns);
            values
        })
        .collect();
    dqkv.par_chunks_exact_mut(shape.qkv_width()).enumerate().with_min_len(64).for_each(
        |(row, dqkv)| {
            for (to, from) in dqkv.chunks_exact_mut(width).zip(&groups) {
                to.copy_from_slice(&from[row * width..(row + 1) * width]);
            }
        },
    );
}

/// Memory that a thread uses again and again.
struct Workspace<T> {
    keys: Vec<T>,
    values: Vec<T>,
    d_keys: Vec<T>,
    d_values: Vec<T>,
    queries: Vec<T>,
    dy: Vec<T>,
    lanes: Vec<T>,
    /// `[keys, 8]`: probabilities, then dropped ones.
    probabilities: Vec<T>,
    /// `[keys, 8]`: gradients of probabilities, then of scores.
    d_scores: Vec<T>,
    /// `[keys, 8]`: the dropout's factors; empty without dropout.
    factors: Vec<T>,
}

impl<T> Default for Workspace<T> {
    fn default() -> Self {
        Workspace {
            keys: Vec::new(),
            values: Vec::new(),
            d_keys: Vec::new(),
            d_values: Vec::new(),
            queries: Vec::new(),
            dy: Vec::new(),
            lanes: Vec::new(),
            probabilities: Vec::new(),
            d_scores: Vec::new(),
            factors: Vec::new(),
        }
    }
}

vectorized! {
    fn group_backward<T: Real>(
        sequence: &Sequence<'_, T>,
        group: usize,
        memory: &mut Workspace<T>,
        columns: Columns<'_, T>,
    ) {
        let (shape, d) = (sequence.shape, sequence.shape.head_dim);
        let width = shape.qkv_width();
        let length = sequence.qkv.len() / width;
        let key = Rows { values: sequence.qkv, stride: width, offset: shape.key(group), width: d };
        pack_rows(&mut memory.keys, key, 0, length, T::ONE);
        pack_rows(&mut memory.values, Rows { offset: key.offset + d, ..key }, 0, length, T::ONE);
        for sums in [&mut memory.d_keys, &mut memory.d_values] {
            sums.clear();
            sums.resize(length.next_multiple_of(LANES) * d.next_multiple_of(LANES), T::ZERO);
        }
        let per_group = shape.heads_per_group();
        for head in 0..per_group {
            let offset = columns.offset + head * d;
            for query in (0..length).step_by(LANES) {
                let count = LANES.min(length - query);
                eight_queries(sequence, memory, group * per_group + head, query);
                for channel in (0..d).step_by(LANES) {
                    let padded = d.next_multiple_of(LANES);
                    let tile = combine(&memory.d_scores, &memory.keys, padded, channel);
                    for (lane, tile) in tile.iter().enumerate().take(count) {
                        let at = (query + lane) * columns.stride + offset + channel;
                        store(&mut columns.values[at..], tile, T::of(shape.scale), d - channel);
                    }
                }
                spread(&mut memory.d_keys, &memory.d_scores, &memory.queries);
                spread(&mut memory.d_values, &memory.probabilities, &memory.dy);
            }
        }
        let padded = d.next_multiple_of(LANES);
        for row in 0..length {
            let at = row * columns.stride + columns.offset + per_group * d;
            let (d_key, d_value) = columns.values[at..at + 2 * d].split_at_mut(d);
            d_key.copy_from_slice(&memory.d_keys[row * padded..][..d]);
            d_value.copy_from_slice(&memory.d_values[row * padded..][..d]);
        }
    }
}

/// Fills the panels of probabilities and score gradients for eight queries of one head.
#[inline(always)]
fn eight_queries<T: Real>(
    sequence: &Sequence<'_, T>,
    memory: &mut Workspace<T>,
    head: usize,
    query: usize,
) {
    let (shape, d) = (sequence.shape, sequence.shape.head_dim);
    let length = sequence.qkv.len() / shape.qkv_width();
    let count = LANES.min(length - query);
    let rows = |values, stride, offset| Rows { values, stride, offset, width: d };
    let q = rows(sequence.qkv, shape.qkv_width(), shape.query(head));
    let dy = rows(sequence.dy, shape.output_width(), head * d);
    let y = rows(sequence.output, shape.output_width(), head * d);
    pack_rows(&mut memory.queries, q, query, count, T::of(shape.scale));
    pack_rows(&mut memory.dy, dy, query, count, T::ONE);
    let (mut log_sums, mut along) = ([T::ZERO; LANES], [T::ZERO; LANES]);
    for lane in 0..count {
        log_sums[lane] = sequence.log_sums[(query + lane) * shape.heads + head];
        along[lane] = dot(dy.row(query + lane), y.row(query + lane));
    }
    let panel = (query + LANES) * LANES;
    memory.probabilities.resize(panel, T::ZERO);
    memory.d_scores.resize(panel, T::ZERO);
    pack_lanes(&mut memory.lanes, &memory.queries);
    dots(&mut memory.probabilities, &memory.keys, &memory.lanes);
    pack_lanes(&mut memory.lanes, &memory.dy);
    dots(&mut memory.d_scores, &memory.values, &memory.lanes);
    for row in memory.probabilities.chunks_exact_mut(LANES) {
        for lane in 0..LANES {
            row[lane] = (row[lane] - log_sums[lane]).exponential();
        }
    }
    hide_later_keys(&mut memory.probabilities, T::ZERO);
    if let Some(dropout) = sequence.dropout {
        fill_factors(&mut memory.factors, dropout, [sequence.first + query, query, count], head);
        for (d_score, factor) in memory.d_scores.iter_mut().zip(&memory.factors) {
            *d_score *= *factor;
        }
    }
    let rows = memory.d_scores.chunks_exact_mut(LANES);
    for (d_scores, probabilities) in rows.zip(memory.probabilities.chunks_exact(LANES)) {
        for lane in 0..LANES {
            d_scores[lane] = probabilities[lane] * (d_scores[lane] - along[lane]);
        }
    }
    if sequence.dropout.is_some() {
        for (probability, factor) in memory.probabilities.iter_mut().zip(&memory.factors) {
            *probability *= *factor;
        }
    }
}

/// The dropout's factors for `count` queries from `query` on, the first of which is row `row`.
fn fill_factors<T: Real>(
    factors: &mut Vec<T>,
    dropout: &ProbabilityDropout<'_>,
    [row, query, count]: [usize; 3],
    head: usize,
) {
    factors.clear();
    factors.resize((query + LANES) * LANES, T::ZERO);
    for lane in 0..count {
        dropout.for_keys(row + lane, head, query + lane, |key, factor| {
            factors[key * LANES + lane] = T::of(factor);
        });
    }
}
