//! Memory of a training run on one device, by formula.
//!
//! The activation terms follow Korthikanti et al. 2022, "Reducing Activation Recomputation in Large
//! Transformer Models", section 4, with what this engine keeps instead of their list: attention
//! never writes its scores, and dropout masks are functions of the position, so neither the
//! `5·a·s²·b` term nor any mask is there; each block keeps the inputs of its matrix products, of
//! its norms and of its activation.

use super::mesh::layers_of_stage;
use super::parameters::{Place, WORD_EMBEDDINGS, table};
use crate::spec::architecture::Architecture;
use crate::spec::optimization::{Degrees, Precision, Recompute};

/// What memory depends on.
#[derive(Clone, Copy, Debug)]
pub struct Workload<'a> {
    /// The model.
    pub architecture: &'a Architecture,
    /// Tokens per sequence.
    pub seq_length: usize,
    /// Sequences per forward pass.
    pub micro_batch_size: usize,
    /// Micro-batches of one replica per step.
    pub micro_batches: usize,
    /// Ranks along each axis.
    pub degrees: Degrees,
    /// Number format of the computation.
    pub precision: Precision,
    /// Half-precision parameters beside fp32 masters.
    pub megatron_amp_o2: bool,
    /// Whether optimizer state is split over the replicas.
    pub distributed_optimizer: bool,
    /// What is computed again.
    pub recompute: Recompute,
}

/// Memory of one device, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceMemory {
    /// Number of parameters on the device (a count, not bytes).
    pub parameters: u64,
    /// Parameters, in half precision where matrix products are; without masters in fp32 too.
    pub weights: u64,
    /// Gradients, in fp32.
    pub gradients: u64,
    /// Moments, and fp32 masters where the weights are not.
    pub optimizer: u64,
    /// What forward passes keep for their backward, at its peak.
    pub activations: u64,
}

impl DeviceMemory {
    /// All bytes together.
    pub fn total(&self) -> u64 {
        self.weights + self.gradients + self.optimizer + self.activations
    }
}

/// Memory of the fullest pipeline stage.
pub fn per_device(workload: &Workload<'_>) -> DeviceMemory {
    let stages = (0..workload.degrees.pipeline).map(|stage| of_stage(workload, stage));
    stages.max_by_key(DeviceMemory::total).unwrap_or_default()
}

/// Memory of a device of pipeline stage `stage`.
pub fn of_stage(workload: &Workload<'_>, stage: usize) -> DeviceMemory {
    let parameters = parameters_of_stage(workload, stage);
    let half = workload.precision != Precision::Fp32;
    let masters = half && workload.megatron_amp_o2;
    let state = parameters * if masters { 12 } else { 8 };
    let replicas = if workload.distributed_optimizer { workload.degrees.data as u64 } else { 1 };
    DeviceMemory {
        parameters,
        weights: parameters * if masters { 2 } else { 4 + if half { 2 } else { 0 } },
        gradients: parameters * 4,
        optimizer: state.div_ceil(replicas),
        activations: activations_of_stage(workload, stage),
    }
}

fn parameters_of_stage(workload: &Workload<'_>, stage: usize) -> u64 {
    let Workload { architecture, degrees, .. } = workload;
    let layers = layers_of_stage(degrees, architecture.num_layers, stage);
    let last = stage + 1 == degrees.pipeline;
    let tied = architecture.share_embeddings_and_output_weights;
    let here = |place: Place, name: &str| match place {
        Place::Embedding => stage == 0 || (last && tied && name == WORD_EMBEDDINGS),
        Place::Layer(layer) => layers.iter().any(|range| range.contains(&layer)),
        Place::Head => last,
    };
    let mine =
        table(architecture).into_iter().filter(|parameter| here(parameter.place, &parameter.name));
    mine.map(|parameter| parameter.local_element_count(degrees.tensor) as u64).sum()
}

fn activations_of_stage(workload: &Workload<'_>, stage: usize) -> u64 {
    let Workload { architecture, degrees, micro_batches, .. } = workload;
    let stages = degrees.pipeline;
    let layers = architecture.num_layers / stages;
    let block = BlockActivations::of(workload);
    // 1F1B: stage s has `stages - s` micro-batches under way. Interleaved, the first stage holds
    // (1 + (p - 1) / (p·v)) times as much as all layers once (Korthikanti et al., equation 5).
    // Counted in model chunks, of which a micro-batch has v on each stage.
    let chunks = degrees.virtual_pipeline;
    let extra = if chunks > 1 { stages - 1 } else { 0 };
    let live = (((stages - stage) * chunks + extra).min(micro_batches * chunks)) as u64;
    let (kept, working) = match workload.recompute {
        Recompute::None => (layers as u64 * block.all, 0),
        Recompute::Selective => (layers as u64 * (block.all - block.attention_core), 0),
        Recompute::Uniform(group) => {
            let group = group.clamp(1, layers.max(1));
            (layers.div_ceil(group) as u64 * block.input, group as u64 * block.all)
        }
        Recompute::Block(count) => {
            let count = count.min(layers) as u64;
            let kept = count * block.input + (layers as u64 - count) * block.all;
            (kept, if count > 0 { block.all } else { 0 })
        }
    };
    let head = if stage + 1 == stages { head_activations(workload) } else { 0 };
    kept * live / chunks as u64 + working + head
}

/// What one block keeps for its backward on one device, in bytes.
struct BlockActivations {
    /// Its input alone.
    input: u64,
    /// Everything.
    all: u64,
    /// The part that selective recomputation gives up.
    attention_core: u64,
}

impl BlockActivations {
    fn of(workload: &Workload<'_>) -> BlockActivations {
        let model = workload.architecture;
        let tensor = workload.degrees.tensor;
        let tokens = (workload.seq_length * workload.micro_batch_size) as u64;
        let bytes = bytes_per_number(workload.precision);
        // Sequence parallelism cuts what tensor parallelism leaves whole.
        let whole = if workload.degrees.sequence { tensor } else { 1 } as u64;
        let split = tensor as u64;
        let hidden = model.hidden_size as u64;
        let query = (model.num_attention_heads * model.kv_channels) as u64;
        let key_value = 2 * (model.num_query_groups * model.kv_channels) as u64;
        let halves = if model.activation.is_gated() { 2 } else { 1 };
        let inner = (halves + 1) * model.ffn_hidden_size as u64;
        // Two inputs of norms and their two outputs; two statistics of each norm in fp32.
        let residual = tokens * (4 * hidden * bytes + 2 * 2 * 4) / whole;
        let projections = tokens * (2 * query + key_value + inner) * bytes / split;
        // The logarithm of each softmax's sum, fp32.
        let attention_core = tokens * model.num_attention_heads as u64 * 4 / split;
        BlockActivations {
            input: tokens * hidden * bytes / whole,
            all: residual + projections + attention_core,
            attention_core,
        }
    }
}

/// The last norm's input and output and the logits, every token learned.
fn head_activations(workload: &Workload<'_>) -> u64 {
    let model = workload.architecture;
    let tokens = (workload.seq_length * workload.micro_batch_size) as u64;
    let bytes = bytes_per_number(workload.precision);
    let logits = model.padded_vocab_size as u64 * bytes / workload.degrees.tensor as u64;
    tokens * (2 * model.hidden_size as u64 * bytes + logits)
}

fn bytes_per_number(precision: Precision) -> u64 {
    match precision {
        Precision::Fp32 => 4,
        Precision::Bf16 | Precision::Fp16 => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::parameters::{element_count, llama_7b};

    fn workload(architecture: &Architecture) -> Workload<'_> {
        Workload {
            architecture,
            seq_length: 2048,
            micro_batch_size: 1,
            micro_batches: 8,
            degrees: Degrees::SINGLE,
            precision: Precision::Bf16,
            megatron_amp_o2: true,
            distributed_optimizer: true,
            recompute: Recompute::None,
        }
    }

    fn degrees(data: usize, pipeline: usize, tensor: usize, sequence: bool) -> Degrees {
        Degrees { data, pipeline, virtual_pipeline: 1, tensor, sequence }
    }

    #[test]
    fn mixed_precision_takes_18_bytes_per_parameter_and_zero_splits_12_of_them() {
        let model = llama_7b();
        let parameters = element_count(&model) as u64;
        let alone = per_device(&workload(&model));
        assert_eq!(alone.weights + alone.gradients + alone.optimizer, 18 * parameters);
        let shared = Workload { degrees: degrees(4, 1, 1, false), ..workload(&model) };
        assert_eq!(per_device(&shared).optimizer, 3 * parameters);
    }

    #[test]
    fn layouts_hold_every_parameter_once() {
        let model = llama_7b();
        let split = Workload { degrees: degrees(1, 4, 2, false), ..workload(&model) };
        let held: u64 = (0..4).map(|stage| 2 * of_stage(&split, stage).parameters).sum();
        // Norm weights are on both tensor ranks.
        assert_eq!(held, element_count(&model) as u64 + 65 * 4096);
        let tied = Architecture { share_embeddings_and_output_weights: true, ..model.clone() };
        let split = Workload { degrees: degrees(1, 4, 2, false), ..workload(&tied) };
        let copies: u64 = (0..4).map(|stage| 2 * of_stage(&split, stage).parameters).sum();
        assert_eq!(copies, held);
    }

    #[test]
    fn sequence_parallelism_cuts_what_tensor_parallelism_leaves() {
        let model = llama_7b();
        let activations =
            |degrees: Degrees| per_device(&Workload { degrees, ..workload(&model) }).activations;
        let (one, tensor) =
            (activations(degrees(1, 1, 1, false)), activations(degrees(1, 1, 4, false)));
        let sequence = activations(degrees(1, 1, 4, true));
        assert!(sequence < tensor && tensor < one && one / 4 < tensor);
    }

    #[test]
    fn recomputation_keeps_inputs_only() {
        let model = llama_7b();
        let activations = |recompute: Recompute| {
            per_device(&Workload { recompute, ..workload(&model) }).activations
        };
        let none = activations(Recompute::None);
        assert!(activations(Recompute::Selective) < none);
        let full = activations(Recompute::Uniform(1));
        assert!(full < activations(Recompute::Block(16)));
        assert!(activations(Recompute::Block(16)) < none);
        // 32 inputs of [2048, 4096] in bf16.
        assert!(full > 32 * 2048 * 4096 * 2);
    }
}
