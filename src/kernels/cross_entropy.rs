//! Cross entropy over a vocabulary that may be cut between ranks, in three steps: statistics, their
//! combination, the gradient.

use super::Result;
use super::carrier::{on_real, read, update};
use super::launch::{rows_per_block, vectorized};
use super::real::Real;
use candle_core::{Device, Tensor, bail};
use rayon::prelude::*;
use std::borrow::Cow;

/// What the columns of the logits stand for, and what each row should say.
#[derive(Clone, Copy, Debug)]
pub struct Targets<'a> {
    /// The right id for each row.
    pub labels: &'a [u32],
    /// The id of the first column: 0, or more where ranks hold parts of the vocabulary.
    pub first: usize,
    /// Number of real ids; columns from here on are padding and take no part.
    pub vocab_size: usize,
}

/// One row's part of the softmax; parts of several ranks combine by [`Statistics::merged`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row {
    /// The largest logit (`-inf` when this part has no real id).
    pub max: f64,
    /// The id that has it (the lowest, when several have).
    pub argmax: usize,
    /// Σ e^(logit - max).
    pub sum: f64,
    /// The label's logit; `None` when the label lies in another part.
    pub label: Option<f64>,
}

impl Row {
    /// Both parts as one; the order of the parts does not matter beyond rounding.
    fn merge(self, other: Row) -> Row {
        let (high, low) = match self.max.total_cmp(&other.max) {
            std::cmp::Ordering::Less => (other, self),
            std::cmp::Ordering::Equal if other.argmax < self.argmax => (other, self),
            _ => (self, other),
        };
        // A sum that is not a number stays so.
        let carried = if low.sum == 0.0 { 0.0 } else { low.sum * (low.max - high.max).exp() };
        Row { sum: high.sum + carried, label: self.label.or(other.label), ..high }
    }

    fn numbers(&self) -> [f64; NUMBERS] {
        let has_label = if self.label.is_some() { 1.0 } else { 0.0 };
        [self.max, self.argmax as f64, self.sum, has_label, self.label.unwrap_or_default()]
    }

    #[expect(clippy::cast_sign_loss, reason = "an id went in")]
    fn from_numbers(numbers: &[f64]) -> Row {
        Row {
            max: numbers[0],
            argmax: numbers[1] as usize,
            sum: numbers[2],
            label: (numbers[3] > 0.0).then_some(numbers[4]),
        }
    }

    /// `log p(label)`; `None` when no part had the label.
    pub fn log_probability(&self) -> Option<f64> {
        self.label.map(|label| label - self.max - self.sum.ln())
    }
}

/// Each row's part of the softmax, where its logits lie.
#[derive(Clone, Debug)]
pub struct Statistics(Rows);

#[derive(Clone, Debug)]
enum Rows {
    Host(Vec<Row>),
    /// `[rows, 4]`: as `cross_entropy.cu` has them.
    #[cfg(feature = "cuda")]
    Gpu(Tensor),
}

/// Numbers of a row as they travel: max, argmax, sum, whether the label is here, and its logit.
const NUMBERS: usize = 5;

impl Statistics {
    /// As a tensor for another rank's [`merged`](Statistics::merged): `[rows, 5]` in f64 on a CPU,
    /// `[rows, 4]` in f32 on a GPU.
    pub fn travelling(&self) -> Result<Tensor> {
        match &self.0 {
            Rows::Host(rows) => {
                let numbers = rows.iter().flat_map(Row::numbers).collect::<Vec<_>>();
                Tensor::from_vec(numbers, (rows.len(), NUMBERS), &Device::Cpu)
            }
            #[cfg(feature = "cuda")]
            Rows::Gpu(parts) => Ok(parts.clone()),
        }
    }

    /// Those of whole rows, from `all` `[parts·rows, …]`: what their parts have
    /// [`travelling`](Statistics::travelling), one part after the other.
    ///
    /// # Errors
    /// Where `all` does not have that form.
    pub fn merged(all: &Tensor, parts: usize) -> Result<Statistics> {
        #[cfg(feature = "cuda")]
        if all.device().is_cuda() {
            return super::cuda::cross_entropy::merged(all, parts).map(Statistics::on_gpu);
        }
        if all.dim(1)? != NUMBERS || all.dim(0)? % parts != 0 {
            bail!("{:?} are no statistics of {parts} parts", all.shape())
        }
        let all = all.to_vec2::<f64>()?;
        let rows = all.len() / parts;
        let row = |row| {
            let parts = all.iter().skip(row).step_by(rows);
            parts.map(|numbers| Row::from_numbers(numbers)).reduce(Row::merge)
        };
        Ok(Statistics(Rows::Host((0..rows).filter_map(row).collect())))
    }

    #[cfg(feature = "cuda")]
    fn on_gpu(parts: Tensor) -> Statistics {
        Statistics(Rows::Gpu(parts))
    }

    /// Each row's, on the host.
    pub fn rows(&self) -> Result<Cow<'_, [Row]>> {
        match &self.0 {
            Rows::Host(rows) => Ok(Cow::Borrowed(rows)),
            #[cfg(feature = "cuda")]
            Rows::Gpu(parts) => super::cuda::cross_entropy::rows(parts).map(Cow::Owned),
        }
    }
}

/// Each row's part of the softmax of `logits` `[rows, columns]`.
pub fn statistics(logits: &Tensor, targets: &Targets<'_>) -> Result<Statistics> {
    let (rows, columns) = logits.dims2()?;
    targets.check(rows)?;
    let real = targets.real_columns(columns);
    #[cfg(feature = "cuda")]
    if logits.device().is_cuda() {
        return super::cuda::cross_entropy::statistics(logits, targets).map(Statistics::on_gpu);
    }
    let rows = on_real!(logits, T => {
        let logits = read::<T>(logits)?;
        let rows_of = logits.par_chunks(columns.max(1)).zip(targets.labels);
        rows_of
            .with_min_len(rows_per_block(columns))
            .map(|(row, label)| targets.row(&row[..real], *label))
            .collect()
    });
    Ok(Statistics(Rows::Host(rows)))
}

/// Σ -log p(label) over all rows in nats, in f64 and always in the same order.
///
/// # Errors
/// Where a label is no id, and on a CPU where no part has it; on a GPU the sum is NaN then.
pub fn loss_sum(statistics: &Statistics, targets: &Targets<'_>) -> Result<f64> {
    targets.check_ids()?;
    #[cfg(feature = "cuda")]
    if let Rows::Gpu(parts) = &statistics.0 {
        return super::cuda::cross_entropy::loss_sum(parts);
    }
    let mut sum = 0.0;
    for (index, row) in statistics.rows()?.iter().enumerate() {
        match row.log_probability() {
            Some(log_probability) => sum -= log_probability,
            None => bail!("the label of row {index} is in no part of the vocabulary"),
        }
    }
    Ok(sum)
}

/// Replaces `logits` by the gradient of the loss SUM times `scale`: `softmax - onehot(label)`, 0 in
/// padding.
///
/// `statistics` are those of whole rows.
pub fn gradient_in_place(
    logits: &Tensor,
    targets: &Targets<'_>,
    statistics: &Statistics,
    scale: f64,
) -> Result<()> {
    let (count, columns) = logits.dims2()?;
    targets.check(count)?;
    #[cfg(feature = "cuda")]
    if let Rows::Gpu(parts) = &statistics.0 {
        return super::cuda::cross_entropy::gradient_in_place(logits, targets, parts, scale);
    }
    let rows = statistics.rows()?;
    if rows.len() != count {
        bail!("{} statistics for {count} rows of logits", rows.len())
    }
    let real = targets.real_columns(columns);
    on_real!(logits, T => update::<T, _>(logits, |logits| {
        logits
            .par_chunks_mut(columns.max(1))
            .zip(targets.labels.par_iter().zip(&*rows))
            .with_min_len(rows_per_block(columns))
            .for_each(|(logits, (label, row))| {
                let (logits, padding) = logits.split_at_mut(real);
                softmax_row(logits, T::of(row.max), T::of(scale / row.sum));
                padding.fill(T::ZERO);
                if let Some(column) = targets.column(*label, real) {
                    logits[column] -= T::of(scale);
                }
            });
    }))
}

/// Loss SUM of `logits` `[rows, columns]` and, in their place, its gradient times `scale`, on one rank.
pub fn forward_backward(
    logits: &Tensor,
    labels: &[u32],
    vocab_size: usize,
    scale: f64,
) -> Result<f64> {
    let targets = Targets { labels, first: 0, vocab_size };
    #[cfg(feature = "cuda")]
    if logits.device().is_cuda() {
        let loss = super::cuda::cross_entropy::forward_backward(logits, &targets, scale)?;
        return targets.check_ids().map(|()| loss);
    }
    let statistics = statistics(logits, &targets)?;
    let loss = loss_sum(&statistics, &targets)?;
    gradient_in_place(logits, &targets, &statistics, scale)?;
    Ok(loss)
}

/// How well a row's label was predicted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score {
    /// `log p(label)`, natural.
    pub log_probability: f64,
    /// Whether the label has the largest logit.
    pub is_argmax: bool,
}

/// The score of each row of `logits` `[rows, columns]`, on one rank.
pub fn scores(logits: &Tensor, labels: &[u32], vocab_size: usize) -> Result<Vec<Score>> {
    scores_of(&statistics(logits, &Targets { labels, first: 0, vocab_size })?.rows()?, labels)
}

/// The score of each row from its combined statistics.
pub fn scores_of(rows: &[Row], labels: &[u32]) -> Result<Vec<Score>> {
    let score = |(row, label): (&Row, &u32)| match row.log_probability() {
        Some(log_probability) => {
            Ok(Score { log_probability, is_argmax: row.argmax == *label as usize })
        }
        None => bail!("label {label} is not below the vocabulary's size"),
    };
    rows.iter().zip(labels).map(score).collect()
}

impl Targets<'_> {
    fn check(&self, rows: usize) -> Result<()> {
        if self.labels.len() == rows {
            return Ok(());
        }
        bail!("{} labels for {rows} rows of logits", self.labels.len())
    }

    /// Whether every label is an id.
    fn check_ids(&self) -> Result<()> {
        match self.labels.iter().find(|label| **label as usize >= self.vocab_size) {
            None => Ok(()),
            Some(label) => {
                bail!("label {label} is not below the vocabulary's size {}", self.vocab_size)
            }
        }
    }

    /// How many of `columns` stand for real ids.
    fn real_columns(&self, columns: usize) -> usize {
        columns.min(self.vocab_size.saturating_sub(self.first))
    }

    /// The label's column, if it is here.
    fn column(&self, label: u32, real: usize) -> Option<usize> {
        (label as usize).checked_sub(self.first).filter(|column| *column < real)
    }

    fn row<T: Real>(&self, logits: &[T], label: u32) -> Row {
        let label = self.column(label, logits.len()).map(|column| logits[column].wide());
        if logits.is_empty() {
            return Row { max: f64::NEG_INFINITY, argmax: usize::MAX, sum: 0.0, label };
        }
        let max = maximum(logits);
        let argmax = logits.iter().position(|logit| *logit == max).unwrap_or_default();
        let sum = sum_of_exponentials(logits, max);
        Row { max: max.wide(), argmax: self.first + argmax, sum, label }
    }
}

/// Interleaved sums, so that they vectorise.
const LANES: usize = 16;

vectorized! {
    /// The largest of a row that is not empty.
    fn maximum<T: Real>(row: &[T]) -> T {
        let mut lanes = [row[0]; LANES];
        let chunks = row.chunks_exact(LANES);
        let rest = chunks.remainder();
        for chunk in chunks {
            for (lane, value) in lanes.iter_mut().zip(chunk) {
                *lane = lane.larger(*value);
            }
        }
        let all = lanes.iter().chain(rest);
        all.fold(row[0], |max, value| max.larger(*value))
    }
}

vectorized! {
    /// Σ e^(x - max).
    fn sum_of_exponentials<T: Real>(row: &[T], max: T) -> f64 {
        let mut lanes = [T::ZERO; LANES];
        let chunks = row.chunks_exact(LANES);
        let rest = chunks.remainder();
        for chunk in chunks {
            for (lane, value) in lanes.iter_mut().zip(chunk) {
                *lane += (*value - max).exponential();
            }
        }
        for (lane, value) in lanes.iter_mut().zip(rest) {
            *lane += (*value - max).exponential();
        }
        lanes.iter().map(|lane| lane.wide()).sum()
    }
}

vectorized! {
    fn softmax_row<T: Real>(row: &mut [T], max: T, factor: T) {
        for value in row {
            *value = (*value - max).exponential() * factor;
        }
    }
}
