//! The vocabulary, split over the tensor ranks: embedding, output layer, loss.
//!
//! Each rank has the rows of its range of ids. Logits are never gathered for a loss or a score:
//! ranks exchange a few numbers for each row (Shoeybi et al. 2019, section 3).

use super::parameter_view::ParameterView;
use super::regions::TensorAxis;
use crate::kernels::cross_entropy::{self, Score, Statistics};
use crate::kernels::embedding::{self, Lookup};
use crate::kernels::linear;
use candle_core::{Result, Tensor, bail};

/// This rank's rows of a table `[padded vocabulary / ranks, hidden]`.
#[derive(Debug)]
pub struct Vocabulary {
    axis: TensorAxis,
    table: ParameterView,
    /// The id of its first row.
    first: usize,
    /// Number of real ids; rows from here on are padding.
    size: usize,
}

impl Vocabulary {
    /// This rank's part of a vocabulary of `size` ids.
    pub fn new(axis: &TensorAxis, table: ParameterView, size: usize) -> Result<Vocabulary> {
        let first = axis.group().rank() * table.value.dim(0)?;
        Ok(Vocabulary { axis: axis.clone(), table, first, size })
    }

    /// The row of each id, plus its position's if positions are embedded: the stream.
    pub fn embed(&self, ids: &[u32], positions: Option<&Lookup<'_>>) -> Result<Tensor> {
        if let Some(id) = ids.iter().find(|id| **id as usize >= self.size) {
            bail!("token {id} is not below the vocabulary's size {}", self.size)
        }
        // The sum over the ranks takes each position once.
        let positions = positions.filter(|_| self.axis.group().rank() == 0);
        self.axis.reduced(&embedding::forward(&self.rows(&self.table.value, ids), positions)?)
    }

    /// Adds the gradient of the table; `dy` is that of all tokens.
    pub fn embed_backward(&self, ids: &[u32], dy: &Tensor) -> Result<()> {
        if !self.table.learns {
            return Ok(());
        }
        embedding::backward(&self.rows(self.table.gradient()?, ids), dy)
    }

    /// Logits `[rows, padded vocabulary]` of `x` `[rows, hidden]`, on every rank.
    pub fn all_logits(&self, x: &Tensor) -> Result<Tensor> {
        let logits = self.logits(x)?;
        match self.axis.group().size() {
            1 => Ok(logits),
            _ => self.axis.group().all_gather(&logits.t()?.contiguous()?)?.t()?.contiguous(),
        }
    }

    /// The cross entropy sum of `x` `[rows, hidden]`, in nats, and the gradient of this rank's
    /// logits, times `scale`.
    pub fn loss(&self, x: &Tensor, labels: &[u32], scale: f64) -> Result<(f64, Tensor)> {
        let logits = self.logits(x)?;
        if self.axis.group().size() == 1 {
            let loss = cross_entropy::forward_backward(&logits, labels, self.size, scale)?;
            return Ok((loss, logits));
        }
        let targets = self.targets(labels);
        let statistics = self.statistics(&logits, &targets)?;
        // First, so that the host waits for the loss once all of it is put into the stream.
        cross_entropy::gradient_in_place(&logits, &targets, &statistics, scale)?;
        Ok((cross_entropy::loss_sum(&statistics, &targets)?, logits))
    }

    /// The gradient of `x`, on every rank; adds the table's.
    pub fn loss_backward(&self, x: &Tensor, d_logits: &Tensor) -> Result<Tensor> {
        self.table.accumulate_product(d_logits, x)?;
        self.axis.all_reduced(&linear::backward_input(d_logits, &self.table.value)?)
    }

    /// How well each label is predicted from `x` `[rows, hidden]`.
    pub fn scores(&self, x: &Tensor, labels: &[u32]) -> Result<Vec<Score>> {
        let statistics = self.statistics(&self.logits(x)?, &self.targets(labels))?;
        cross_entropy::scores_of(&statistics.rows()?, labels)
    }

    /// This rank's logits `[rows, padded vocabulary / ranks]`.
    fn logits(&self, x: &Tensor) -> Result<Tensor> {
        linear::forward(x, &self.table.value, None)
    }

    fn rows<'a>(&self, table: &'a Tensor, ids: &'a [u32]) -> Lookup<'a> {
        Lookup { table, first: self.first, ids }
    }

    fn targets<'a>(&self, labels: &'a [u32]) -> cross_entropy::Targets<'a> {
        cross_entropy::Targets { labels, first: self.first, vocab_size: self.size }
    }

    /// Each row's softmax over the whole vocabulary.
    fn statistics(
        &self,
        logits: &Tensor,
        targets: &cross_entropy::Targets<'_>,
    ) -> Result<Statistics> {
        let (own, ranks) = (cross_entropy::statistics(logits, targets)?, self.axis.group().size());
        if ranks == 1 || targets.labels.is_empty() {
            return Ok(own);
        }
        Statistics::merged(&self.axis.group().all_gather(&own.travelling()?)?, ranks)
    }
}
