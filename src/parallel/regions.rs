//! Where a layer is split over the tensor ranks and where it is not, and the collectives between.
//!
//! Between the split layers runs the residual stream. All tensor ranks hold it whole, or, with
//! sequence parallelism (Korthikanti et al. 2022, section 4.2.2), each holds its rows. Two
//! operations lead into the split layers and out of them, and each is the other's backward (the
//! papers' `f` and `g`, with sequence parallelism `g` and `ḡ`):
//!
//! | | stream whole | stream in rows |
//! |---|---|---|
//! | [`TensorAxis::gathered`]: stream to all tokens | nothing | all-gather |
//! | [`TensorAxis::reduced`]: every rank's part of a sum to the stream | all-reduce | reduce-scatter |
//!
//! `reduced` can also be started, so that work that does not need its result runs beside it.
//! [`TensorAxis::scattered`] takes this rank's rows of what all ranks hold alike. Rows are padded with
//! zeros to a multiple of the ranks, so that all ranks hold equally many. The gradients of padding rows
//! are zeros, so that they count nowhere.

use super::alone::Alone;
use super::group::{Collective, Group, Pending, Reduction};
use super::mesh::Mesh;
use candle_core::{Result, Tensor};
use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

/// The ranks that split each layer, and how the residual stream lies between the layers.
#[derive(Clone, Debug)]
pub struct TensorAxis {
    group: Arc<dyn Group>,
    /// Whether each rank holds its rows of the stream only.
    sequence: bool,
}

impl TensorAxis {
    /// One rank that splits nothing.
    pub fn alone() -> TensorAxis {
        TensorAxis { group: Arc::new(Alone), sequence: false }
    }

    /// The tensor axis of a mesh.
    pub fn of(mesh: &Mesh) -> TensorAxis {
        let sequence = mesh.degrees.sequence && mesh.degrees.tensor > 1;
        TensorAxis { group: mesh.tensor.clone(), sequence }
    }

    /// The ranks.
    pub fn group(&self) -> &dyn Group {
        &*self.group
    }

    /// This rank's part of `count` heads or channels that the ranks share equally.
    pub fn part(&self, count: usize) -> Range<usize> {
        let each = count / self.group.size();
        let start = self.group.rank() * each;
        start..start + each
    }

    /// Rows of the residual stream on each rank, for a micro-batch of `tokens` tokens.
    pub fn stream_rows(&self, tokens: usize) -> usize {
        if self.sequence { tokens.div_ceil(self.group.size()) } else { tokens }
    }

    /// All `tokens` rows, from the stream.
    pub fn gathered(&self, stream: &Tensor, tokens: usize) -> Result<Tensor> {
        if self.sequence {
            self.group.all_gather(stream)?.narrow(0, 0, tokens)
        } else {
            Ok(stream.clone())
        }
    }

    /// The stream, from each rank's part of a sum for every token.
    pub fn reduced(&self, part: &Tensor) -> Result<Tensor> {
        if self.sequence {
            self.group.reduce_scatter(&self.padded(part)?)
        } else {
            self.all_reduced(part)
        }
    }

    /// Starts [`reduced`](TensorAxis::reduced).
    pub fn start_reduced(&self, part: &Tensor) -> Result<Pending> {
        if self.sequence {
            self.group.start(Collective::ReduceScatter, &self.padded(part)?)
        } else {
            self.group.start(Collective::AllReduce(Reduction::Sum), part)
        }
    }

    /// The sum of every rank's part, whole on all ranks.
    pub fn all_reduced(&self, part: &Tensor) -> Result<Tensor> {
        match self.group.size() {
            1 => Ok(part.clone()),
            _ => self.group.all_reduce(part, Reduction::Sum),
        }
    }

    /// The stream, from what all ranks hold alike for every token.
    pub fn scattered(&self, all: &Tensor) -> Result<Tensor> {
        if !self.sequence {
            return Ok(all.clone());
        }
        let rows = self.stream_rows(all.dim(0)?);
        self.padded(all)?.narrow(0, self.group.rank() * rows, rows)
    }

    /// What [`scattered`](TensorAxis::scattered) is for a list with an entry for each token; padding gets zeros.
    pub fn scattered_list<'a>(&self, all: &'a [u64]) -> Cow<'a, [u64]> {
        if !self.sequence {
            return Cow::Borrowed(all);
        }
        let rows = self.stream_rows(all.len());
        let start = self.group.rank() * rows;
        let entry = |row| all.get(row).copied().unwrap_or_default();
        Cow::Owned((start..start + rows).map(entry).collect())
    }

    /// `x` with rows of zeros up to a multiple of the ranks.
    fn padded(&self, x: &Tensor) -> Result<Tensor> {
        let tokens = x.dim(0)?;
        let missing = self.stream_rows(tokens) * self.group.size() - tokens;
        if missing == 0 { Ok(x.clone()) } else { x.pad_with_zeros(0, 0, missing) }
    }
}
