//! Attention's forward: eight queries at a time against all keys before them.

#![expect(clippy::inline_always, reason = "parts of loops that are built once per instruction set")]

use super::tiles::{LANES, Rows, combine, dots, hide_later_keys, pack_lanes, pack_rows, store};
use super::{ProbabilityDropout, Shape, check_starts, cut};
use crate::kernels::Result;
use crate::kernels::carrier::{expect_shape, on_real, read, tensor};
use crate::kernels::launch::{unfilled, vectorized};
use crate::kernels::real::Real;
use candle_core::{Tensor, WithDType};
use rayon::prelude::*;

/// What the backward needs of the forward.
#[derive(Clone, Debug)]
pub struct Saved {
    /// The qkv tensor as attention saw it.
    pub(super) qkv: Tensor,
    /// The output `[tokens, heads·head_dim]`.
    pub(super) output: Tensor,
    /// log Σ e^score of each token and head `[tokens, heads]`.
    pub(super) log_sums: Tensor,
}

impl Saved {
    /// Everything held.
    pub fn tensors(&self) -> [&Tensor; 3] {
        [&self.qkv, &self.output, &self.log_sums]
    }
}

/// Queries per task at most; a multiple of [`LANES`].
const QUERIES_PER_TASK: usize = 256;

/// Attention over `qkv` `[tokens, (heads + 2·groups)·head_dim]`; gives `[tokens, heads·head_dim]`, in
/// its format.
///
/// `starts` holds the first row of each sequence and, last, the number of tokens.
pub fn forward(
    qkv: &Tensor,
    starts: &[usize],
    shape: &Shape,
    dropout: Option<&ProbabilityDropout<'_>>,
) -> Result<(Tensor, Saved)> {
    let tokens = qkv.dim(0)?;
    shape.check()?;
    expect_shape("qkv", qkv, &[tokens, shape.qkv_width()])?;
    check_starts(starts, tokens)?;
    if let Some(dropout) = dropout {
        dropout.dropout.check(tokens)?;
    }
    #[cfg(feature = "cuda")]
    if qkv.device().is_cuda() {
        return {
            let (output, log_sums) =
                crate::kernels::cuda::attention::forward(qkv, starts, shape, dropout)?;
            Ok((output.clone(), Saved { qkv: qkv.clone(), output, log_sums }))
        };
    }
    on_real!(qkv, T => {
        let values = read::<T>(qkv)?;
        let values: &[T] = &values;
        let mut output = unfilled::<T>(tokens * shape.output_width());
        let mut log_sums = unfilled::<T>(tokens * shape.heads);
        let (firsts, bounds) = tasks(starts);
        let outputs = cut(&mut output, shape.output_width(), &bounds);
        let sums = cut(&mut log_sums, shape.heads, &bounds);
        outputs.into_par_iter().zip(sums).enumerate().for_each_init(
            Workspace::default,
            |workspace, (index, (output, log_sums))| {
                let first = firsts[index];
                let task = Task {
                    qkv: &values[first * shape.qkv_width()..],
                    first,
                    skipped: bounds[index] - first,
                    end: bounds[index + 1] - first,
                    shape,
                    dropout,
                };
                run(&task, workspace, output, log_sums);
            },
        );
        let output = tensor(output, (tokens, shape.output_width()), qkv.dtype())?;
        let log_sums = tensor(log_sums, (tokens, shape.heads), T::DTYPE)?;
        Ok((output.clone(), Saved { qkv: qkv.clone(), output, log_sums }))
    })
}

/// For each task the first row of its sequence, and the rows where tasks begin (and, last, end).
fn tasks(starts: &[usize]) -> (Vec<usize>, Vec<usize>) {
    let (mut firsts, mut bounds) = (Vec::new(), vec![0]);
    for pair in starts.windows(2) {
        for from in (pair[0]..pair[1]).step_by(QUERIES_PER_TASK) {
            firsts.push(pair[0]);
            bounds.push(pair[1].min(from + QUERIES_PER_TASK));
        }
    }
    (firsts, bounds)
}

/// Some queries of one sequence.
struct Task<'a, T> {
    /// Values from the sequence's first row on.
    qkv: &'a [T],
    /// That row's number in the batch.
    first: usize,
    /// The sequence's queries before this task's, a multiple of [`LANES`].
    skipped: usize,
    /// One past this task's last query, counted in the sequence.
    end: usize,
    shape: &'a Shape,
    dropout: Option<&'a ProbabilityDropout<'a>>,
}

/// Memory that a thread uses again and again.
struct Workspace<T> {
    keys: Vec<T>,
    values: Vec<T>,
    queries: Vec<T>,
    lanes: Vec<T>,
    panel: Vec<T>,
}

impl<T> Default for Workspace<T> {
    fn default() -> Self {
        Workspace {
            keys: Vec::new(),
            values: Vec::new(),
            queries: Vec::new(),
            lanes: Vec::new(),
            panel: Vec::new(),
        }
    }
}

vectorized! {
    fn run<T: Real>(
        task: &Task<'_, T>,
        memory: &mut Workspace<T>,
        output: &mut [T],
        log_sums: &mut [T],
    ) {
        let (shape, d) = (task.shape, task.shape.head_dim);
        let head_rows =
            |offset| Rows { values: task.qkv, stride: shape.qkv_width(), offset, width: d };
        for head in 0..shape.heads {
            if head % shape.heads_per_group() == 0 {
                let key = shape.key(head / shape.heads_per_group());
                pack_rows(&mut memory.keys, head_rows(key), 0, task.end, T::ONE);
                pack_rows(&mut memory.values, head_rows(key + d), 0, task.end, T::ONE);
            }
            let queries = head_rows(shape.query(head));
            for query in (task.skipped..task.end).step_by(LANES) {
                let count = LANES.min(task.end - query);
                pack_rows(&mut memory.queries, queries, query, count, T::of(shape.scale));
                eight_queries(task, memory, head, query);
                let at = (query - task.skipped) * shape.heads + head;
                write(task, memory, &mut output[at * d..], &mut log_sums[at..], count);
            }
        }
    }
}

/// Scores of eight queries against all keys up to them, as weights that are not normalized yet;
/// leaves in `memory.lanes` the largest score and the sum of each query's weights.
#[inline(always)]
fn eight_queries<T: Real>(
    task: &Task<'_, T>,
    memory: &mut Workspace<T>,
    head: usize,
    query: usize,
) {
    let padded = task.shape.head_dim.next_multiple_of(LANES);
    pack_lanes(&mut memory.lanes, &memory.queries[..LANES * padded]);
    memory.panel.resize((query + LANES) * LANES, T::ZERO);
    dots(&mut memory.panel, &memory.keys, &memory.lanes);
    let [max, sum] = exponentials(&mut memory.panel);
    memory.lanes.clear();
    memory.lanes.extend(max);
    memory.lanes.extend(sum);
    if let Some(dropout) = task.dropout {
        for lane in 0..LANES.min(task.end - query) {
            let row = task.first + query + lane;
            dropout.for_keys(row, head, query + lane, |key, factor| {
                memory.panel[key * LANES + lane] *= T::of(factor);
            });
        }
    }
}

/// `e^(score - max)` in place, 0 for later keys; gives max and sum per query.
#[inline(always)]
fn exponentials<T: Real>(panel: &mut [T]) -> [[T; LANES]; 2] {
    hide_later_keys(panel, T::of(-1e30));
    let mut max = [T::of(-1e30); LANES];
    for row in panel.chunks_exact(LANES) {
        for lane in 0..LANES {
            max[lane] = max[lane].larger(row[lane]);
        }
    }
    for row in panel.chunks_exact_mut(LANES) {
        for lane in 0..LANES {
            row[lane] = (row[lane] - max[lane]).exponential();
        }
    }
    hide_later_keys(panel, T::ZERO);
    let mut sum = [T::ZERO; LANES];
    for row in panel.chunks_exact(LANES) {
        for lane in 0..LANES {
            sum[lane] += row[lane];
        }
    }
    [max, sum]
}

/// The weighted values of `count` queries, normalized; `output` and `log_sums` start at the first one's.
#[inline(always)]
fn write<T: Real>(
    task: &Task<'_, T>,
    memory: &Workspace<T>,
    output: &mut [T],
    log_sums: &mut [T],
    count: usize,
) {
    let (heads, d) = (task.shape.heads, task.shape.head_dim);
    let (max, sum) = memory.lanes.split_at(LANES);
    let mut factors = [T::ONE; LANES];
    for (factor, sum) in factors.iter_mut().zip(sum) {
        *factor = T::ONE / *sum;
    }
    for lane in 0..count {
        log_sums[lane * heads] = max[lane] + sum[lane].logarithm();
    }
    for channel in (0..d).step_by(LANES) {
        let padded = d.next_multiple_of(LANES);
        let tile = combine(&memory.panel, &memory.values, padded, channel);
        for (lane, tile) in tile.iter().enumerate().take(count) {
            store(&mut output[lane * heads * d + channel..], tile, factors[lane], d - channel);
        }
    }
}
