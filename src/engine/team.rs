//! A checkpoint's model over ranks that read text with it: a thread each while there is work.

use super::devices;
use super::replica::{Member, RankFailure, Replica};
use crate::checkpoint::manifest::Kind;
use crate::checkpoint::native;
use crate::checkpoint::opened::Opened;
use crate::checkpoint::piecewise;
use crate::layout::holding::Holding;
use crate::layout::mesh::{Coordinates, coordinates, rank};
use crate::model::Model;
use crate::model::formats::Formats;
use crate::model::weights::Weights;
use crate::parallel::ranks::{self, Cause, Failure};
use crate::spec::architecture::Architecture;
use crate::spec::backend::Backend;
use crate::spec::optimization::Degrees;
use candle_core::{Device, Tensor};
use std::path::Path;

/// Why a checkpoint's model cannot be spread.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] native::Error),
    /// The model cannot be cut like this.
    #[error(
        "{count} {what} cannot be shared by {ranks} {axis} ranks: choose a number that divides them"
    )]
    Cut {
        /// What is cut.
        what: &'static str,
        /// How many there are.
        count: usize,
        /// Ranks that would share them.
        ranks: usize,
        /// `tensor` or `pipeline`.
        axis: &'static str,
    },
}

/// The weights of every rank of a layout.
#[derive(Debug)]
pub struct Team {
    architecture: Architecture,
    degrees: Degrees,
    /// By the rank's number.
    weights: Vec<Weights>,
}

impl Team {
    /// The model in the checkpoint at `path`, whatever program wrote it, for ranks of `backend`.
    pub fn open(
        path: &Path,
        degrees: Degrees,
        formats: Formats,
        backend: Backend,
    ) -> Result<Team, Error> {
        Team::of(&Opened::open(path, None)?.whole()?, degrees, formats, backend)
    }

    /// The model in an opened checkpoint, for ranks of `backend`.
    pub fn of(
        opened: &Opened,
        degrees: Degrees,
        formats: Formats,
        backend: Backend,
    ) -> Result<Team, Error> {
        let mut architecture = opened.architecture().clone();
        check(&architecture, &degrees)?;
        architecture.padded_vocab_size =
            architecture.padded_vocab_size.next_multiple_of(degrees.tensor);
        let width = architecture.hidden_size;
        let mut weights: Vec<Weights> = Vec::with_capacity(degrees.world_size());
        for number in 0..degrees.world_size() {
            let at = coordinates(&degrees, number);
            let first = rank(&degrees, Coordinates { data: 0, ..at });
            if let (Backend::Cpu, Some(same)) = (backend, weights.get(first)) {
                weights.push(same.clone());
                continue;
            }
            let read = || -> Result<Weights, native::Error> {
                let replica = Degrees { data: 1, ..degrees };
                let at = Coordinates { data: 0, ..at };
                let holding = Holding::of(&architecture, &replica, at);
                let all: Vec<_> = std::iter::once(0..holding.length()).collect();
                // A device takes its time to start, as reading does.
                let (values, device) = rayon::join(
                    || piecewise::read(opened.source(), Kind::Weight, &holding, &all),
                    || devices::started(backend, number, formats.products, width),
                );
                let values = Tensor::from_vec(values?, holding.length(), &Device::Cpu)?;
                Ok(Weights::held(holding, &values, formats, &device?)?)
            };
            weights.push(read()?);
        }
        Ok(Team { architecture, degrees, weights })
    }

    /// The shape of the model.
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// Lets `work` read from the model on the leading rank of every replica; gives what they gave,
    /// in the replicas' order.
    ///
    /// # Errors
    /// What `work` gives first, or what happened to another rank first.
    pub fn lead<R, E>(&self, work: impl Fn(Replica<'_>) -> Result<R, E> + Sync) -> Result<Vec<R>, E>
    where
        R: Send,
        E: std::error::Error + From<RankFailure> + Send + Sync + 'static,
    {
        let given = ranks::run(&self.degrees, |mesh| {
            let weights = self.weights[mesh.rank].clone();
            let model = Model::of_rank(&self.architecture, weights, &mesh);
            let member = model.and_then(|model| Member::of(&model, &mesh));
            member.map_err(RankFailure::new)?.lead(&work)
        });
        match given {
            Ok(given) => Ok(given.into_iter().flatten().collect()),
            Err(failure) => {
                let Failure { rank, at, degrees, cause } = *failure;
                let leads = at.pipeline == 0 && at.tensor == 0;
                Err(match cause {
                    Cause::Error(error) if leads => error,
                    cause => RankFailure::new(Failure { rank, at, degrees, cause }).into(),
                })
            }
        }
    }
}

/// Refuses a layout that the model cannot be cut into.
fn check(architecture: &Architecture, degrees: &Degrees) -> Result<(), Error> {
    let Degrees { tensor, pipeline, virtual_pipeline, .. } = *degrees;
    let (heads, groups) = (architecture.num_attention_heads, architecture.num_query_groups);
    let parts = [
        // The fewer of the two say more.
        (
            if groups < heads { "key/value heads" } else { "attention heads" },
            groups,
            tensor,
            "tensor",
        ),
        ("attention heads", heads, tensor, "tensor"),
        ("channels of the MLP", architecture.ffn_hidden_size, tensor, "tensor"),
        ("layers", architecture.num_layers, pipeline * virtual_pipeline, "pipeline"),
    ];
    for (what, count, ranks, axis) in parts {
        if !count.is_multiple_of(ranks) {
            return Err(Error::Cut { what, count, ranks, axis });
        }
    }
    Ok(())
}

/// Puts what replicas gave for their shares back into one order: replica `r` of `n` had the items
/// `r`, `r + n`, `r + 2n`, ….
pub fn together<T>(shares: Vec<Vec<T>>) -> Vec<T> {
    let mut shares: Vec<_> = shares.into_iter().map(Vec::into_iter).collect();
    let mut all = Vec::new();
    let mut given = true;
    while given {
        given = false;
        for share in &mut shares {
            let next = share.next();
            given |= next.is_some();
            all.extend(next);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::together;

    #[test]
    fn shares_come_back_in_their_order() {
        assert_eq!(together(vec![vec![0, 3, 6], vec![1, 4], vec![2, 5]]), [0, 1, 2, 3, 4, 5, 6]);
        assert_eq!(together::<u8>(vec![vec![], vec![]]), [0; 0]);
    }
}
