//! What the leader of a replica tells its other ranks, and how it gets to them.

use crate::model::batch::{Batch, Targets};
use crate::parallel::group::Group;
use crate::parallel::mesh::Mesh;
use candle_core::{Device, Error, Result, Tensor};
use serde::{Deserialize, Serialize};

/// What all ranks are to do.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Command {
    /// Make room for rows of text, in place of those before.
    Open { rows: usize, blocks: usize },
    /// Forget rows, then read new tokens of rows.
    Extend { released: Vec<usize>, new: Vec<(usize, Vec<u32>)> },
    /// Score targets.
    Score(ScoredBatch),
    /// Nothing more.
    End,
}

/// A batch with targets, as it travels.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ScoredBatch {
    tokens: Vec<u32>,
    positions: Vec<u32>,
    starts: Vec<usize>,
    places: Vec<u32>,
    labels: Vec<u32>,
}

impl ScoredBatch {
    pub(super) fn of(batch: &Batch<'_>, targets: &Targets<'_>) -> ScoredBatch {
        ScoredBatch {
            tokens: batch.tokens.to_vec(),
            positions: batch.positions.to_vec(),
            starts: batch.starts.to_vec(),
            places: targets.places.to_vec(),
            labels: targets.labels.to_vec(),
        }
    }

    pub(super) fn batch(&self) -> Batch<'_> {
        let ScoredBatch { tokens, positions, starts, .. } = self;
        Batch { tokens, positions, starts, addresses: &[] }
    }

    pub(super) fn targets(&self) -> Targets<'_> {
        Targets::new(&self.places, &self.labels)
    }
}

impl Command {
    /// The leader's part: tells its tensor ranks, each of which tells its pipeline.
    pub(super) fn tell(&self, mesh: &Mesh) -> Result<()> {
        let text = serde_json::to_vec(self).map_err(Error::wrap)?;
        broadcast(&*mesh.tensor, Some(&text))?;
        broadcast(&*mesh.pipeline, Some(&text))?;
        Ok(())
    }

    /// The other ranks' part: the leader's next command.
    pub(super) fn hear(mesh: &Mesh) -> Result<Command> {
        let mut text = None;
        if mesh.is_first_stage() {
            text = Some(broadcast(&*mesh.tensor, None)?);
        }
        let text = broadcast(&*mesh.pipeline, text.as_deref())?;
        serde_json::from_slice(&text).map_err(Error::wrap)
    }
}

/// The bytes that the first rank of `group` has, on every rank.
fn broadcast(group: &dyn Group, bytes: Option<&[u8]>) -> Result<Vec<u8>> {
    if let (1, Some(bytes)) = (group.size(), bytes) {
        return Ok(bytes.to_vec());
    }
    // First how many, so that all ranks bring a tensor of the same form.
    let length = bytes.map_or(0, <[u8]>::len) as u32;
    let length = group.broadcast(&Tensor::new(&[length], &Device::Cpu)?, 0)?.to_vec1::<u32>()?[0];
    let length = length as usize;
    let own = if group.rank() == 0 { bytes } else { None };
    let own = own.map_or_else(|| vec![0; length], <[u8]>::to_vec);
    group.broadcast(&Tensor::from_vec(own, length, &Device::Cpu)?, 0)?.to_vec1()
}
