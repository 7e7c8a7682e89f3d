//! Embeddings: rows of a table gathered by id, and their gradients added back.

use super::Result;
use super::carrier::{on_real, read, tensor, update};
use super::launch::{for_row_blocks, unfilled};
use super::real::Real;
use super::residual::add;
use candle_core::{Tensor, bail};
use rayon::prelude::*;

/// Rows of a table, one per token.
#[derive(Clone, Copy, Debug)]
pub struct Lookup<'a> {
    /// `[rows, width]`; the values, or in the backward their gradient.
    pub table: &'a Tensor,
    /// The id of the table's first row: 0, or more where ranks hold parts of the vocabulary.
    pub first: usize,
    /// One id per token; an id outside the table adds nothing (another rank has it).
    pub ids: &'a [u32],
}

impl Lookup<'_> {
    /// The row of each token's id in this table.
    fn row(&self, token: usize, rows: usize) -> Option<usize> {
        (self.ids[token] as usize).checked_sub(self.first).filter(|row| *row < rows)
    }
}

/// The word's row plus, if given, the position's: `[tokens, width]`, in the table's format.
pub fn forward(word: &Lookup<'_>, position: Option<&Lookup<'_>>) -> Result<Tensor> {
    let (rows, width) = word.table.dims2()?;
    let tokens = word.ids.len();
    if let Some(position) = position {
        check_positions(position, tokens, width)?;
    }
    #[cfg(feature = "cuda")]
    if word.table.device().is_cuda() {
        return super::cuda::embedding::forward(word, position);
    }
    on_real!(word.table, T => {
        let words = read::<T>(word.table)?;
        let words: &[T] = &words;
        let positions = position.map(|position| read::<T>(position.table)).transpose()?;
        let mut out = unfilled::<T>(tokens * width);
        for_row_blocks(&mut out, width, |first, block| {
            for (token, out) in (first..).zip(block.chunks_exact_mut(width)) {
                match word.row(token, rows) {
                    Some(row) => out.copy_from_slice(&words[row * width..(row + 1) * width]),
                    None => out.fill(T::ZERO),
                }
                if let (Some(position), Some(table)) = (position, positions.as_deref()) {
                    let row = position.ids[token] as usize - position.first;
                    add(out, &table[row * width..(row + 1) * width]);
                }
            }
        });
        tensor(out, (tokens, width), word.table.dtype())
    })
}

/// Adds each row of `dy` `[tokens, width]` to the row of its token in `gradient.table`.
pub fn backward(gradient: &Lookup<'_>, dy: &Tensor) -> Result<()> {
    let (rows, width) = gradient.table.dims2()?;
    super::carrier::expect_shape("dy", dy, &[gradient.ids.len(), width])?;
    #[cfg(feature = "cuda")]
    if dy.device().is_cuda() {
        return super::cuda::embedding::backward(gradient, dy, || tokens_by_row(gradient, rows));
    }
    let order = tokens_by_row(gradient, rows);
    on_real!(dy, T => {
        let dy = read::<T>(dy)?;
        let dy: &[T] = &dy;
        update::<T, _>(gradient.table, |table| scatter(table, width, &order, dy))
    })
}

/// (row, token) pairs in order: each row's tokens in their own order, whatever the threads.
fn tokens_by_row(lookup: &Lookup<'_>, rows: usize) -> Vec<(usize, usize)> {
    let mut order: Vec<_> = (0..lookup.ids.len())
        .filter_map(|token| lookup.row(token, rows).map(|row| (row, token)))
        .collect();
    order.sort_unstable();
    order
}

/// Table rows per task of the scatter.
const ROWS_PER_TASK: usize = 64;

fn scatter<T: Real>(table: &mut [T], width: usize, order: &[(usize, usize)], dy: &[T]) {
    table.par_chunks_mut(ROWS_PER_TASK * width.max(1)).enumerate().for_each(|(task, part)| {
        let first = task * ROWS_PER_TASK;
        let from = order.partition_point(|(row, _)| *row < first);
        let to = order.partition_point(|(row, _)| *row < first + ROWS_PER_TASK);
        for (row, token) in &order[from..to] {
            let at = (row - first) * width;
            add(&mut part[at..at + width], &dy[token * width..(token + 1) * width]);
        }
    });
}

fn check_positions(position: &Lookup<'_>, tokens: usize, width: usize) -> Result<()> {
    let (rows, position_width) = position.table.dims2()?;
    if position.ids.len() != tokens || position_width != width {
        bail!(
            "{} positions of width {position_width} for {tokens} tokens of width {width}",
            position.ids.len()
        )
    }
    match (0..tokens).find(|token| position.row(*token, rows).is_none()) {
        Some(token) => bail!(
            "position {} of token {token} is outside the {rows} learned positions",
            position.ids[token]
        ),
        None => Ok(()),
    }
}
