//! A checkpoint's model over ranks that read text with it: a thread each while there is work, on one
//! node or several.

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
use crate::parallel::nodes::Nodes;
use crate::parallel::ranks::{self, Cause, Failure};
use crate::spec::architecture::Architecture;
use crate::spec::backend::Backend;
use crate::spec::optimization::Degrees;
use candle_core::{Device, Tensor};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::Path;
use std::sync::Arc;

/// Under which what replicas gave travels between nodes.
const GIVEN: &str = "given by replicas";

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

/// What a team's ranks are spread over.
#[derive(Clone, Debug)]
pub struct Spread {
    /// Ranks along each axis.
    pub degrees: Degrees,
    /// Number formats of the weights and products.
    pub formats: Formats,
    /// What the ranks compute on.
    pub backend: Backend,
    /// The nodes that have the ranks, all of which open the team and lead it; none where all are here.
    pub nodes: Option<Arc<Nodes>>,
}

/// The weights of every rank of a layout that is here.
#[derive(Debug)]
pub struct Team {
    architecture: Architecture,
    degrees: Degrees,
    nodes: Option<Arc<Nodes>>,
    /// By the rank's number among those of this node.
    weights: Vec<Weights>,
}

impl Team {
    /// The model in the checkpoint at `path`, whatever program wrote it.
    pub fn open(path: &Path, spread: Spread) -> Result<Team, Error> {
        Team::of(&Opened::open(path, None)?.whole()?, spread)
    }

    /// The model in an opened checkpoint.
    pub fn of(opened: &Opened, spread: Spread) -> Result<Team, Error> {
        let Spread { degrees, formats, backend, nodes } = spread;
        let mut architecture = opened.architecture().clone();
        check(&architecture, &degrees)?;
        architecture.padded_vocab_size =
            architecture.padded_vocab_size.next_multiple_of(degrees.tensor);
        let width = architecture.hidden_size;
        let here = nodes.as_ref().map_or(0..degrees.world_size(), |nodes| nodes.place().ranks());
        let mut weights: Vec<Weights> = Vec::with_capacity(here.len());
        for number in here.clone() {
            let at = coordinates(&degrees, number);
            // The same part of the model in another replica.
            let mut twins =
                (0..degrees.data).map(|data| rank(&degrees, Coordinates { data, ..at }));
            let twin = twins.find_map(|twin| weights.get(twin.checked_sub(here.start)?));
            if let (Backend::Cpu, Some(same)) = (backend, twin) {
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
                    || devices::started(backend, number - here.start, formats.products, width),
                );
                let values = Tensor::from_vec(values?, holding.length(), &Device::Cpu)?;
                Ok(Weights::held(holding, &values, formats, &device?)?)
            };
            weights.push(read()?);
        }
        Ok(Team { architecture, degrees, nodes, weights })
    }

    /// The shape of the model.
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// Replicas that are led on this node.
    pub fn led_here(&self) -> usize {
        let world = self.degrees.world_size();
        let here = self.nodes.as_ref().map_or(0..world, |nodes| nodes.place().ranks());
        let leads = |rank: &usize| {
            let at = coordinates(&self.degrees, *rank);
            at.pipeline == 0 && at.tensor == 0
        };
        here.filter(leads).count()
    }

    /// Lets `work` read from the model on the leading rank of every replica; gives what they gave,
    /// in the replicas' order, or none where another node leads.
    ///
    /// # Errors
    /// What `work` gives first, or what happened to another rank or node first.
    pub fn lead_all<R, E>(
        &self,
        work: impl Fn(Replica<'_>) -> Result<R, E> + Sync,
    ) -> Result<Option<Vec<R>>, E>
    where
        R: Serialize + DeserializeOwned + Send,
        E: std::error::Error + From<RankFailure> + Send + Sync + 'static,
    {
        let here = self.lead::<_, E>(|replica| Ok((replica.share().0, work(replica)?)))?;
        Ok(self.gather(here)?)
    }

    /// The same for the replicas that are led on this node, whose results stay here.
    ///
    /// # Errors
    /// As [`lead_all`](Team::lead_all).
    pub fn lead<R, E>(&self, work: impl Fn(Replica<'_>) -> Result<R, E> + Sync) -> Result<Vec<R>, E>
    where
        R: Send,
        E: std::error::Error + From<RankFailure> + Send + Sync + 'static,
    {
        let given = ranks::run_on(self.nodes.as_ref(), &self.degrees, |mesh| {
            let weights = self.weights[mesh.device].clone();
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
                    cause => {
                        let is_accident = cause.is_accident();
                        let failure = RankFailure::new(Failure { rank, at, degrees, cause });
                        failure.by_accident(is_accident).into()
                    }
                })
            }
        }
    }

    /// What the replicas of all nodes gave, each with its number, in their order; on node 0.
    fn gather<R: Serialize + DeserializeOwned>(
        &self,
        here: Vec<(usize, R)>,
    ) -> Result<Option<Vec<R>>, RankFailure> {
        let mut given = here;
        if let Some(nodes) = &self.nodes {
            if !nodes.leads() {
                nodes.post(0, GIVEN, serde_json::to_vec(&given).map_err(RankFailure::new)?);
                return Ok(None);
            }
            for node in 1..nodes.place().count {
                let told = nodes.fetch(node, GIVEN).map_err(|ended| {
                    let is_accident = ended.is_accident;
                    RankFailure::new(ended).by_accident(is_accident)
                })?;
                let told: Vec<(usize, R)> =
                    serde_json::from_slice(&told).map_err(RankFailure::new)?;
                given.extend(told);
            }
        }
        given.sort_by_key(|(replica, _)| *replica);
        Ok(Some(given.into_iter().map(|(_, given)| given).collect()))
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
