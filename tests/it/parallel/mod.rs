//! Ranks that work together: collectives, failures.

// Every collective against sums by hand; misuse; failing ranks.
mod groups;
// Split layers against whole ones, in f64.
mod layers;
// The same collectives over two nodes, to the bit; a rank that does not come.
mod nodes;

use sft_run::spec::optimization::Degrees;

/// `data` × `pipeline` × `tensor` ranks.
fn degrees(data: usize, pipeline: usize, tensor: usize) -> Degrees {
    Degrees { data, pipeline, virtual_pipeline: 1, tensor, sequence: false }
}
