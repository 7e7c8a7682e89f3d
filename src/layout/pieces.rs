//! Which rank holds which parts of the parameters, and which rank writes them into a checkpoint.

use super::mesh::{self, Coordinates};
use super::parameters::{Parameter, Place, Sharing, WORD_EMBEDDINGS};
use super::slice::Slice;
use crate::spec::optimization::Degrees;

/// A part of a parameter.
#[derive(Clone, Debug, PartialEq)]
pub struct Piece<'a> {
    /// The parameter.
    pub parameter: &'a Parameter,
    /// Which part of it, in terms of its whole shape, padding included.
    pub slice: Slice,
}

/// What the rank at `at` computes with, in the table's order.
///
/// The last pipeline stage holds the word embeddings too when they are the output layer.
pub fn held<'a>(table: &'a [Parameter], degrees: &Degrees, at: Coordinates) -> Vec<Piece<'a>> {
    let stages = Stages::new(table, degrees);
    let mine = table.iter().filter(|parameter| {
        let tied = stages.is_tied && parameter.name == WORD_EMBEDDINGS;
        stages.of(parameter) == at.pipeline || (tied && at.pipeline == degrees.pipeline - 1)
    });
    mine.map(|parameter| Piece { parameter, slice: local(parameter, degrees, at) }).collect()
}

/// What the rank at `at` writes of the weights: over all ranks, each element once.
///
/// That is the first replica, the first tensor rank for what all of them hold, and the first stage
/// for the word embeddings. The vocabulary's padding is not written.
pub fn written<'a>(table: &'a [Parameter], degrees: &Degrees, at: Coordinates) -> Vec<Piece<'a>> {
    if at.data > 0 {
        return Vec::new();
    }
    owned(table, degrees, at)
}

/// What the rank at `at` writes of the optimizer's state when that is spread over the replicas: an
/// equal share of the elements that its tensor and pipeline rank owns, each element once.
pub fn written_shards<'a>(
    table: &'a [Parameter],
    degrees: &Degrees,
    at: Coordinates,
) -> Vec<Piece<'a>> {
    let pieces = owned(table, degrees, at);
    let count = |piece: &Piece<'_>| piece.slice.element_count(&piece.parameter.shape);
    let total: usize = pieces.iter().map(count).sum();
    let share = |number: usize| total * number / degrees.data;
    let (start, end) = (share(at.data), share(at.data + 1));
    let mut before = 0;
    let mut shards = Vec::new();
    for piece in pieces {
        let here = before..before + count(&piece);
        before = here.end;
        let (from, to) = (start.max(here.start), end.min(here.end));
        if from < to {
            let whole = from == here.start && to == here.end;
            let slice = if whole {
                piece.slice
            } else {
                piece.slice.elements(from - here.start..to - here.start)
            };
            shards.push(Piece { slice, ..piece });
        }
    }
    shards
}

fn owned<'a>(table: &'a [Parameter], degrees: &Degrees, at: Coordinates) -> Vec<Piece<'a>> {
    let stages = Stages::new(table, degrees);
    let mine = table.iter().filter(|parameter| {
        let shared = parameter.sharing == Sharing::Replicated && at.tensor > 0;
        stages.of(parameter) == at.pipeline && !shared
    });
    let stored = |parameter: &'a Parameter| {
        let slice = local(parameter, degrees, at);
        let slice = slice.first_rows(parameter.stored_shape()[0], &parameter.shape);
        Piece { parameter, slice }
    };
    mine.map(stored).filter(|piece| !piece.slice.ranges.is_empty()).collect()
}

fn local(parameter: &Parameter, degrees: &Degrees, at: Coordinates) -> Slice {
    Slice::of_rank(&parameter.shape, parameter.sharing, degrees.tensor, at.tensor)
}

/// The pipeline stage of every parameter.
struct Stages<'a> {
    degrees: &'a Degrees,
    stage_of_layer: Vec<usize>,
    is_tied: bool,
}

impl Stages<'_> {
    fn new<'a>(table: &[Parameter], degrees: &'a Degrees) -> Stages<'a> {
        let layer = |parameter: &Parameter| match parameter.place {
            Place::Layer(layer) => Some(layer + 1),
            Place::Embedding | Place::Head => None,
        };
        let layers = table.iter().filter_map(layer).max().unwrap_or(0);
        let mut stage_of_layer = vec![0; layers];
        for stage in 0..degrees.pipeline {
            for layer in mesh::layers_of_stage(degrees, layers, stage).into_iter().flatten() {
                stage_of_layer[layer] = stage;
            }
        }
        let is_tied =
            !table.iter().any(|parameter| parameter.name == super::parameters::OUTPUT_LAYER);
        Stages { degrees, stage_of_layer, is_tied }
    }

    fn of(&self, parameter: &Parameter) -> usize {
        match parameter.place {
            Place::Embedding => 0,
            Place::Layer(layer) => self.stage_of_layer[layer],
            Place::Head => self.degrees.pipeline - 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::parameters::{llama_7b, table};
    use crate::spec::architecture::Architecture;

    fn small(tied: bool) -> Architecture {
        Architecture {
            num_layers: 8,
            hidden_size: 16,
            ffn_hidden_size: 24,
            num_attention_heads: 8,
            num_query_groups: 4,
            kv_channels: 2,
            vocab_size: 19,
            padded_vocab_size: 32,
            share_embeddings_and_output_weights: tied,
            ..llama_7b()
        }
    }

    /// Every element of every stored parameter lies in one piece.
    fn covers(table: &[Parameter], pieces: &[Piece<'_>]) {
        for parameter in table {
            let mut seen = vec![0; parameter.stored_shape().iter().product()];
            for piece in pieces.iter().filter(|piece| piece.parameter.name == parameter.name) {
                piece.slice.runs(&parameter.shape).flatten().for_each(|at| seen[at] += 1);
            }
            assert!(seen.iter().all(|count| *count == 1), "{}", parameter.name);
        }
    }

    #[test]
    fn every_element_is_written_once() {
        for (tensor, pipeline, virtual_pipeline, data) in
            [(1, 1, 1, 1), (2, 2, 2, 2), (4, 1, 1, 3), (4, 4, 2, 1), (1, 8, 1, 2)]
        {
            let degrees = Degrees { data, pipeline, virtual_pipeline, tensor, sequence: false };
            let table = table(&small(tensor == 4));
            let ranks = || (0..degrees.world_size()).map(|rank| mesh::coordinates(&degrees, rank));
            let weights: Vec<_> = ranks().flat_map(|at| written(&table, &degrees, at)).collect();
            covers(&table, &weights);
            let shards: Vec<_> =
                ranks().flat_map(|at| written_shards(&table, &degrees, at)).collect();
            covers(&table, &shards);
        }
    }

    #[test]
    fn a_tied_embedding_is_held_by_both_ends_and_written_by_the_first() {
        let degrees =
            Degrees { data: 1, pipeline: 2, virtual_pipeline: 1, tensor: 2, sequence: false };
        let table = table(&small(true));
        let at = Coordinates { data: 0, pipeline: 1, tensor: 1 };
        let names = |pieces: Vec<Piece<'_>>| -> Vec<String> {
            pieces.iter().map(|piece| piece.parameter.name.clone()).collect()
        };
        assert!(names(held(&table, &degrees, at)).contains(&WORD_EMBEDDINGS.to_owned()));
        assert!(!names(written(&table, &degrees, at)).contains(&WORD_EMBEDDINGS.to_owned()));
        // The second tensor rank holds rows 16 to 31, of which 16 to 18 are the vocabulary's.
        let first = written(&table, &degrees, Coordinates { pipeline: 0, ..at });
        assert_eq!(first[0].slice.ranges, vec![16..19]);
    }
}
