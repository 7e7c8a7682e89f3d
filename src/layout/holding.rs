//! What a rank holds of the parameters, and where each piece lies in its flat buffers.

use super::frozen;
use super::mesh::Coordinates;
use super::parameters::{Parameter, Place, Sharing, table};
use super::pieces::held;
use super::slice::Slice;
use crate::spec::architecture::Architecture;
use crate::spec::optimization::Degrees;
use std::ops::Range;

/// The pieces of one rank, end to end in the table's order, and zeros up to a length that the
/// replicas can cut evenly.
#[derive(Clone, Debug, PartialEq)]
pub struct Holding {
    parts: Vec<Part>,
    length: usize,
    is_tied: bool,
}

/// One piece.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// The parameter, as a whole.
    pub parameter: Parameter,
    /// What the rank has of it.
    pub slice: Slice,
    /// The piece's own shape.
    pub shape: Vec<usize>,
    /// Where it lies in the rank's buffers.
    pub range: Range<usize>,
    /// Whether it is this rank that counts it in sums over the model: of what several ranks of a
    /// replica hold alike, one does.
    pub counts: bool,
    /// Whether training changes it; false for a frozen parameter.
    pub learns: bool,
    /// Where the parameter begins in a buffer of the whole model.
    whole_start: usize,
}

impl Part {
    /// Whether each tensor rank's gradient is a sum over its rows of the residual stream only, when
    /// the stream is cut by sequence: the norms of blocks, and biases added to the stream.
    pub fn is_summed_over_rows(&self) -> bool {
        self.parameter.sharing == Sharing::Replicated
            && matches!(self.parameter.place, Place::Layer(_))
    }

    /// Equal elements here and in a buffer of the whole model: runs of the buffer of this rank, and
    /// where each begins in the whole.
    fn runs(&self) -> impl Iterator<Item = (Range<usize>, usize)> {
        let mut at = self.range.start;
        self.slice.runs(&self.parameter.shape).map(move |run| {
            let local = at..at + run.len();
            at = local.end;
            (local, self.whole_start + run.start)
        })
    }
}

impl Holding {
    /// All parameters, on one rank.
    pub fn single(architecture: &Architecture) -> Holding {
        let at = Coordinates { data: 0, pipeline: 0, tensor: 0 };
        Holding::of(architecture, &Degrees::SINGLE, at)
    }

    /// What the rank at `at` holds.
    pub fn of(architecture: &Architecture, degrees: &Degrees, at: Coordinates) -> Holding {
        let table = table(architecture);
        let mut starts = Vec::with_capacity(table.len());
        let mut whole_end = 0;
        for parameter in &table {
            starts.push((parameter.name.clone(), whole_end));
            whole_end += parameter.element_count();
        }
        let mut end = 0;
        let mut parts = Vec::new();
        for piece in held(&table, degrees, at) {
            let parameter = piece.parameter.clone();
            let shape = piece.slice.shape(&parameter.shape);
            let range = end..end + shape.iter().product::<usize>();
            end = range.end;
            let start = starts.iter().find(|(name, _)| *name == parameter.name);
            let whole_start = start.map_or(0, |(_, start)| *start);
            let is_copy = parameter.place == Place::Embedding && at.pipeline > 0;
            let is_shared = parameter.sharing == Sharing::Replicated && at.tensor > 0;
            let counts = !is_copy && !is_shared;
            let slice = piece.slice;
            let learns = true;
            parts.push(Part { parameter, slice, shape, range, counts, learns, whole_start });
        }
        Holding {
            parts,
            length: end.next_multiple_of(degrees.data.max(1)),
            is_tied: architecture.share_embeddings_and_output_weights,
        }
    }

    /// The same with the parameters frozen that these patterns name ([`frozen::names`]).
    #[must_use]
    pub fn freezing(mut self, patterns: &[String]) -> Holding {
        for part in &mut self.parts {
            part.learns = !frozen::names(patterns, &part.parameter.name);
        }
        self
    }

    /// What training changes of elements `owned` of the buffers: all but frozen parameters.
    pub fn learned(&self, owned: &[Range<usize>]) -> Vec<Range<usize>> {
        let mut learned = Vec::new();
        for owned in owned {
            let mut start = owned.start;
            for part in self.parts.iter().filter(|part| !part.learns) {
                let frozen = intersection(&part.range, &(start..owned.end));
                if !frozen.is_empty() {
                    learned.push(start..frozen.start);
                    start = frozen.end;
                }
            }
            learned.push(start..owned.end);
        }
        learned.retain(|range| !range.is_empty());
        learned
    }

    /// Whether the word embeddings are the output layer.
    pub fn is_tied(&self) -> bool {
        self.is_tied
    }

    /// The pieces, in the order of the buffers.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Length of the buffers, padding included.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Elements of the pieces.
    pub fn element_count(&self) -> usize {
        self.parts.last().map_or(0, |part| part.range.end)
    }

    /// This rank's buffer, from one of the whole model in the table's order; padding is zeros.
    pub fn cut<T: Copy + Default>(&self, whole: &[T]) -> Vec<T> {
        let mut cut = Vec::with_capacity(self.length);
        for (local, start) in self.parts.iter().flat_map(Part::runs) {
            cut.extend_from_slice(&whole[start..start + local.len()]);
        }
        cut.resize(self.length, T::default());
        cut
    }

    /// Puts elements `owned` of this rank's buffer, which are `values` end to end, to their places in
    /// a buffer of the whole model.
    pub fn put<T: Copy>(&self, owned: &[Range<usize>], values: &[T], whole: &mut [T]) {
        let mut before = 0;
        for range in owned {
            for (local, start) in self.parts.iter().flat_map(Part::runs) {
                let Range { start: from, end: to } = intersection(&local, range);
                if from < to {
                    let (source, target) =
                        (before + from - range.start, start + from - local.start);
                    whole[target..target + to - from]
                        .copy_from_slice(&values[source..source + to - from]);
                }
            }
            before += range.len();
        }
    }
}

/// The elements in both ranges; an empty range where there are none.
pub fn intersection(a: &Range<usize>, b: &Range<usize>) -> Range<usize> {
    let start = a.start.max(b.start);
    start..a.end.min(b.end).max(start)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::mesh::coordinates;
    use crate::layout::parameters::{element_count, llama_7b};

    #[test]
    fn the_ranks_together_hold_the_whole() {
        let architecture = Architecture {
            num_layers: 4,
            hidden_size: 8,
            ffn_hidden_size: 12,
            num_attention_heads: 4,
            num_query_groups: 2,
            kv_channels: 2,
            vocab_size: 13,
            padded_vocab_size: 16,
            share_embeddings_and_output_weights: true,
            ..llama_7b()
        };
        let whole: Vec<u32> = (0..element_count(&architecture) as u32).collect();
        for (data, pipeline, tensor) in [(1, 1, 1), (2, 2, 2), (3, 4, 1), (1, 2, 2)] {
            let degrees = Degrees { data, pipeline, virtual_pipeline: 1, tensor, sequence: false };
            let mut again = vec![0; whole.len()];
            let mut counted = 0;
            for rank in 0..degrees.world_size() {
                let holding = Holding::of(&architecture, &degrees, coordinates(&degrees, rank));
                let cut = holding.cut(&whole);
                assert!(cut.len().is_multiple_of(data));
                // As two halves: what an optimizer's shards do.
                let owned = [0..cut.len() / 3, cut.len() / 3..cut.len()];
                holding.put(&owned, &cut, &mut again);
                let counts = holding.parts().iter().filter(|part| part.counts);
                counted += counts.map(|part| part.range.len()).sum::<usize>();
            }
            assert_eq!(again, whole);
            assert_eq!(counted, data * whole.len());
        }
    }
}
