//! One rank's view of the mesh: where it stands, and its groups.

use super::alone::Alone;
use super::group::Group;
use super::nodes::Nodes;
use super::threads::{GroupKind, Hub};
use crate::layout::mesh::{Axis, Coordinates, coordinates, group};
use crate::spec::optimization::Degrees;
use std::sync::Arc;

/// Where a rank stands, and the groups that it works with.
#[derive(Clone, Debug)]
pub struct Mesh {
    /// Ranks along each axis.
    pub degrees: Degrees,
    /// The rank's number in the run.
    pub rank: usize,
    /// Its number among the ranks of its node, which is that of its device.
    pub device: usize,
    /// The run's nodes, if there are several.
    pub nodes: Option<Arc<Nodes>>,
    /// Its place on each axis.
    pub at: Coordinates,
    /// All ranks of the run.
    pub world: Arc<dyn Group>,
    /// The ranks that split each layer with this one; a rank's number in it is `at.tensor`.
    pub tensor: Arc<dyn Group>,
    /// The stages of this pipeline, in order.
    pub pipeline: Arc<dyn Group>,
    /// The replicas of this rank's part of the model.
    pub data: Arc<dyn Group>,
    /// On the first and last of several pipeline stages: the two of them, which both hold a tied
    /// word embedding.
    pub embedding: Option<Arc<dyn Group>>,
}

impl Mesh {
    /// The mesh of one rank.
    pub fn single() -> Mesh {
        Mesh {
            degrees: Degrees::SINGLE,
            rank: 0,
            device: 0,
            nodes: None,
            at: Coordinates { data: 0, pipeline: 0, tensor: 0 },
            world: Arc::new(Alone),
            tensor: Arc::new(Alone),
            pipeline: Arc::new(Alone),
            data: Arc::new(Alone),
            embedding: None,
        }
    }

    /// The mesh of rank `rank`, a thread of `hub`.
    pub(super) fn of_threads(degrees: &Degrees, hub: &Arc<Hub>, rank: usize) -> Mesh {
        let group_of = |kind: GroupKind, ranks: Vec<usize>| -> Arc<dyn Group> {
            if ranks.len() == 1 { Arc::new(Alone) } else { Arc::new(hub.group(kind, &ranks, rank)) }
        };
        let along = |axis| group(degrees, rank, axis);
        let stages = along(Axis::Pipeline);
        let ends: Vec<usize> = stages.first().into_iter().chain(stages.last()).copied().collect();
        let has_ends = stages.len() > 1 && ends.contains(&rank);
        Mesh {
            degrees: *degrees,
            rank,
            device: hub.local(rank),
            nodes: hub.nodes().cloned(),
            at: coordinates(degrees, rank),
            world: group_of(GroupKind::World, (0..degrees.world_size()).collect()),
            tensor: group_of(GroupKind::Tensor, along(Axis::Tensor)),
            pipeline: group_of(GroupKind::Pipeline, stages),
            data: group_of(GroupKind::Data, along(Axis::Data)),
            embedding: has_ends.then(|| group_of(GroupKind::Embedding, ends)),
        }
    }

    /// Whether this is the first rank of its node.
    pub fn leads_node(&self) -> bool {
        self.device == 0
    }

    /// Whether this rank holds the first layers.
    pub fn is_first_stage(&self) -> bool {
        self.at.pipeline == 0
    }

    /// Whether this rank holds the last layers.
    pub fn is_last_stage(&self) -> bool {
        self.at.pipeline + 1 == self.degrees.pipeline
    }
}
