//! The mesh of ranks: who stands where on the data, pipeline and tensor axes.
//!
//! Ranks are numbered as Megatron numbers them: neighbours share a tensor group, then come the
//! replicas, then the pipeline stages, so that the axis that talks most stays inside a node.

use crate::spec::optimization::Degrees;
use std::ops::Range;

/// An axis of the mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Axis {
    /// Replicas of the model.
    Data,
    /// Pipeline stages.
    Pipeline,
    /// Ranks that split each layer.
    Tensor,
}

/// Where a rank stands, each from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coordinates {
    /// Its replica.
    pub data: usize,
    /// Its pipeline stage.
    pub pipeline: usize,
    /// Its piece of each layer.
    pub tensor: usize,
}

/// Where `rank` stands.
pub fn coordinates(degrees: &Degrees, rank: usize) -> Coordinates {
    Coordinates {
        tensor: rank % degrees.tensor,
        data: rank / degrees.tensor % degrees.data,
        pipeline: rank / (degrees.tensor * degrees.data),
    }
}

/// Who stands at `at`.
pub fn rank(degrees: &Degrees, at: Coordinates) -> usize {
    (at.pipeline * degrees.data + at.data) * degrees.tensor + at.tensor
}

/// The ranks on the line through `rank` along `axis`, in order.
pub fn group(degrees: &Degrees, rank_in_it: usize, axis: Axis) -> Vec<usize> {
    let at = coordinates(degrees, rank_in_it);
    let line = |degree: usize, at_index: &dyn Fn(usize) -> Coordinates| {
        (0..degree).map(|index| rank(degrees, at_index(index))).collect()
    };
    match axis {
        Axis::Data => line(degrees.data, &|data| Coordinates { data, ..at }),
        Axis::Pipeline => line(degrees.pipeline, &|pipeline| Coordinates { pipeline, ..at }),
        Axis::Tensor => line(degrees.tensor, &|tensor| Coordinates { tensor, ..at }),
    }
}

/// The layers of pipeline stage `stage`, one range for each of its model chunks.
///
/// With several chunks, chunk `c` of stage `s` holds the block of layers `c × stages + s`
/// (Megatron's interleaved schedule).
pub fn layers_of_stage(degrees: &Degrees, num_layers: usize, stage: usize) -> Vec<Range<usize>> {
    let per_chunk = num_layers / (degrees.pipeline * degrees.virtual_pipeline);
    let chunk = |chunk: usize| {
        let start = (chunk * degrees.pipeline + stage) * per_chunk;
        start..start + per_chunk
    };
    (0..degrees.virtual_pipeline).map(chunk).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEGREES: Degrees =
        Degrees { data: 2, pipeline: 4, virtual_pipeline: 2, tensor: 3, sequence: false };

    #[test]
    fn a_rank_is_where_its_coordinates_say() {
        for number in 0..DEGREES.world_size() {
            assert_eq!(rank(&DEGREES, coordinates(&DEGREES, number)), number);
        }
    }

    #[test]
    fn tensor_groups_are_neighbours_and_pipelines_are_far_apart() {
        assert_eq!(group(&DEGREES, 4, Axis::Tensor), [3, 4, 5]);
        assert_eq!(group(&DEGREES, 4, Axis::Data), [1, 4]);
        assert_eq!(group(&DEGREES, 4, Axis::Pipeline), [4, 10, 16, 22]);
    }

    #[test]
    fn every_layer_is_on_one_stage() {
        let mut layers: Vec<_> =
            (0..4).flat_map(|stage| layers_of_stage(&DEGREES, 16, stage)).flatten().collect();
        layers.sort_unstable();
        assert_eq!(layers, (0..16).collect::<Vec<_>>());
        assert_eq!(layers_of_stage(&DEGREES, 16, 1), [2..4, 10..12]);
    }
}
