//! Memory of a training run on one device, by formula.
//!
//! The activation terms follow Korthikanti et al. 2022, "Reducing Activation Recomputation in Large
//! Transformer Models", section 4, with what this engine keeps instead of their list: attention
//! never writes its scores, and dropout masks are functions of the position, so neither the
//! `5·a·s²·b` term nor any mask is there; each block keeps the inputs of its norms, of its
//! activation and of its second and fourth matrix product; the norms' outputs, which the others take,
//! are made again beside the norms' gradients.

use super::frozen;
use super::mesh::layers_of_stage;
use super::parameters::{Place, WORD_EMBEDDINGS, table};
use super::recompute::{Group, Keep, groups};
use super::schedule::peak_live;
use crate::spec::architecture::Architecture;
use crate::spec::optimization::{Degrees, Precision, Recompute};
use serde::Serialize;

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
    /// Half-precision parameters, whose fp32 masters the optimizer has: in 4 bytes beside fp16, in 2
    /// beside bf16, whose parameters are the upper half of them.
    pub megatron_amp_o2: bool,
    /// Whether optimizer state is split over the replicas.
    pub distributed_optimizer: bool,
    /// What is computed again.
    pub recompute: Recompute,
    /// Patterns of the parameters that are frozen.
    pub frozen: &'a [String],
}

/// Memory of one device, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DeviceMemory {
    /// Number of parameters on the device (a count, not bytes).
    pub parameters: u64,
    /// Parameters, in half precision where matrix products are; without masters in fp32 too.
    pub weights: u64,
    /// Gradients, in fp32.
    pub gradients: u64,
    /// Moments, and fp32 masters: 4 bytes each beside fp16, 2 beside bf16.
    pub optimizer: u64,
    /// What forward passes keep for their backward, at its peak; every sequence full and every token
    /// learned.
    pub activations: u64,
    /// Temporary results of the layer being computed.
    pub working: u64,
}

impl DeviceMemory {
    /// All bytes together.
    pub fn total(&self) -> u64 {
        self.weights + self.gradients + self.optimizer + self.activations + self.working
    }
}

/// Memory of the fullest pipeline stage.
pub fn per_device(workload: &Workload<'_>) -> DeviceMemory {
    let stages = (0..workload.degrees.pipeline).map(|stage| of_stage(workload, stage));
    stages.max_by_key(DeviceMemory::total).unwrap_or_default()
}

/// Memory of a device of pipeline stage `stage`.
pub fn of_stage(workload: &Workload<'_>, stage: usize) -> DeviceMemory {
    let [parameters, learned] = parameters_of_stage(workload, stage);
    let half = workload.precision != Precision::Fp32;
    let masters = half && workload.megatron_amp_o2;
    let beside = match workload.precision {
        Precision::Bf16 if masters => 2,
        Precision::Fp16 if masters => 4,
        Precision::Fp32 | Precision::Bf16 | Precision::Fp16 => 0,
    };
    let state = 8 * learned + beside * parameters;
    let replicas = if workload.distributed_optimizer { workload.degrees.data as u64 } else { 1 };
    DeviceMemory {
        parameters,
        weights: parameters * if masters { 2 } else { 4 + if half { 2 } else { 0 } },
        gradients: parameters * 4,
        optimizer: state.div_ceil(replicas),
        activations: activations_of_stage(workload, stage),
        working: working_of_stage(workload),
    }
}

/// All parameters of a device, and those that are not frozen.
fn parameters_of_stage(workload: &Workload<'_>, stage: usize) -> [u64; 2] {
    let Workload { architecture, degrees, .. } = workload;
    let layers = layers_of_stage(degrees, architecture.num_layers, stage);
    let last = stage + 1 == degrees.pipeline;
    let tied = architecture.share_embeddings_and_output_weights;
    let here = |place: Place, name: &str| match place {
        Place::Embedding => stage == 0 || (last && tied && name == WORD_EMBEDDINGS),
        Place::Layer(layer) => layers.iter().any(|range| range.contains(&layer)),
        Place::Head => last,
    };
    let mut counts = [0; 2];
    for parameter in table(architecture) {
        if here(parameter.place, &parameter.name) {
            let count = parameter.local_element_count(degrees.tensor) as u64;
            let learns = !frozen::names(workload.frozen, &parameter.name);
            counts[0] += count;
            counts[1] += if learns { count } else { 0 };
        }
    }
    counts
}

/// The most that forward passes of `stage` keep for their backward, over its schedule.
fn activations_of_stage(workload: &Workload<'_>, stage: usize) -> u64 {
    let Degrees { pipeline, virtual_pipeline: chunks, .. } = workload.degrees;
    let blocks = workload.architecture.num_layers / (pipeline * chunks);
    let chunk = ChunkActivations::of(workload, blocks);
    let live = peak_live(pipeline, chunks, workload.micro_batches, stage) as u64;
    // What is computed again comes on top when the backward of a chunk begins. The head's share
    // comes on top of the forward of the last chunk, whose backward follows at once.
    let head = if stage + 1 == pipeline { head_activations(workload) } else { 0 };
    live * chunk.kept + chunk.again.max(head)
}

/// What the temporary results of one layer take, at their most: those of a block's backward.
fn working_of_stage(workload: &Workload<'_>) -> u64 {
    let width = Widths::of(workload);
    let again = match workload.recompute {
        Recompute::Selective => width.core(),
        Recompute::None | Recompute::Uniform(_) | Recompute::Block(_) => 0,
    };
    // The gradient of the MLP's first weight is computed after attention's backward.
    let attention = width.query + width.qkv + again + width.inner;
    let mlp = width.inner + width.active;
    // The gradients of the block's output and of the residual stream, a norm's output and its gradient;
    // of all tokens the MLP's input, attention's output gradient, and what tensor ranks add up.
    let Degrees { tensor, sequence, .. } = workload.degrees;
    let exchanged = match (sequence, tensor) {
        (true, _) => 3 * width.gathered,
        (false, 1) => 0,
        (false, _) => width.normalized,
    };
    attention.max(mlp) + 2 * width.stream + 2 * width.normalized + exchanged
}

/// What one model chunk keeps for one micro-batch on one device, in bytes.
#[derive(Clone, Copy, Debug)]
struct ChunkActivations {
    /// Between its forward and its backward.
    kept: u64,
    /// How much more during its backward, at most.
    again: u64,
}

impl ChunkActivations {
    fn of(workload: &Workload<'_>, blocks: usize) -> ChunkActivations {
        let block = BlockActivations::of(&Widths::of(workload));
        let groups = groups(workload.recompute, blocks);
        let kept_by = |group: &Group| match group.keep {
            Keep::All => block.all * group.blocks.len() as u64,
            Keep::AllButCore => (block.all - block.core) * group.blocks.len() as u64,
            Keep::Input => block.input,
        };
        let kept: u64 = groups.iter().map(kept_by).sum();
        // The backward goes through the groups from the last on, and frees each.
        let (mut before, mut most) = (kept, kept);
        for group in groups.iter().rev() {
            before -= kept_by(group);
            if group.keep == Keep::Input {
                most = most.max(before + block.all * group.blocks.len() as u64);
            }
        }
        ChunkActivations { kept, again: most - kept }
    }
}

/// Bytes of the tensors inside a block for one micro-batch on one device.
#[derive(Clone, Copy, Debug)]
struct Widths {
    /// A tensor of the residual stream; sequence parallelism cuts it.
    stream: u64,
    /// The output of a norm; sequence parallelism cuts it.
    normalized: u64,
    /// The same of all tokens.
    gathered: u64,
    /// Mean and reciprocal deviation of a norm, fp32.
    moments: u64,
    /// Queries, keys and values.
    qkv: u64,
    /// Queries alone: also the width of attention's output.
    query: u64,
    /// The logarithm of each softmax's sum, fp32.
    log_sums: u64,
    /// The MLP before its activation: gate and up of a gated one.
    inner: u64,
    /// The MLP after its activation.
    active: u64,
}

impl Widths {
    fn of(workload: &Workload<'_>) -> Widths {
        let model = workload.architecture;
        let Degrees { tensor, sequence, .. } = workload.degrees;
        let tokens = (workload.seq_length * workload.micro_batch_size) as u64;
        let bytes = Bytes::of(workload);
        // Sequence parallelism cuts what tensor parallelism leaves whole.
        let whole = if sequence { tensor } else { 1 } as u64;
        let split = |width: usize| tokens * bytes.products * width as u64 / tensor as u64;
        let hidden = tokens * model.hidden_size as u64;
        let halves = if model.activation.is_gated() { 2 } else { 1 };
        let query = model.num_attention_heads * model.kv_channels;
        let key_value = 2 * model.num_query_groups * model.kv_channels;
        Widths {
            stream: bytes.stream * hidden / whole,
            normalized: bytes.products * hidden / whole,
            gathered: bytes.products * hidden,
            moments: tokens * 2 * 4 / whole,
            qkv: split(query + key_value),
            query: split(query),
            log_sums: tokens * model.num_attention_heads as u64 * 4 / tensor as u64,
            inner: split(halves * model.ffn_hidden_size),
            active: split(model.ffn_hidden_size),
        }
    }

    /// Output and log-sums of attention's core.
    fn core(&self) -> u64 {
        self.query + self.log_sums
    }
}

/// What one block keeps for its backward on one device, in bytes.
#[derive(Clone, Copy, Debug)]
struct BlockActivations {
    /// Its input alone.
    input: u64,
    /// Everything.
    all: u64,
    /// The part that selective recomputation gives up.
    core: u64,
}

impl BlockActivations {
    fn of(width: &Widths) -> BlockActivations {
        // Inputs and moments of two norms; the inputs of attention's core, of its output layer, of the
        // activation and of the MLP's second product.
        let norms = 2 * (width.stream + width.moments);
        BlockActivations {
            input: width.stream,
            all: norms + width.qkv + width.core() + width.inner + width.active,
            core: width.core(),
        }
    }
}

/// The last norm's input, moments and output, and the logits, every token learned.
fn head_activations(workload: &Workload<'_>) -> u64 {
    let model = workload.architecture;
    let tokens = (workload.seq_length * workload.micro_batch_size) as u64;
    let Bytes { stream, products } = Bytes::of(workload);
    let logits = products * model.padded_vocab_size as u64 / workload.degrees.tensor as u64;
    tokens * ((stream + products) * model.hidden_size as u64 + 2 * 4 + logits)
}

/// Bytes per number.
#[derive(Clone, Copy, Debug)]
struct Bytes {
    /// In the residual stream.
    stream: u64,
    /// In and out of matrix products.
    products: u64,
}

impl Bytes {
    /// Without `megatron_amp_O2`, half precision is that of NeMo's autocast: the residual stream
    /// stays in fp32.
    fn of(workload: &Workload<'_>) -> Bytes {
        let products = match workload.precision {
            Precision::Fp32 => 4,
            Precision::Bf16 | Precision::Fp16 => 2,
        };
        Bytes { stream: if workload.megatron_amp_o2 { products } else { 4 }, products }
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
            frozen: &[],
        }
    }

    fn degrees(data: usize, pipeline: usize, tensor: usize, sequence: bool) -> Degrees {
        Degrees { data, pipeline, virtual_pipeline: 1, tensor, sequence }
    }

    #[test]
    fn mixed_precision_takes_16_or_18_bytes_per_parameter_and_zero_splits_10_or_12_of_them() {
        let model = llama_7b();
        let parameters = element_count(&model) as u64;
        for (precision, bytes, split) in [(Precision::Bf16, 16, 10), (Precision::Fp16, 18, 12)] {
            let workload = Workload { precision, ..workload(&model) };
            let alone = per_device(&workload);
            assert_eq!(alone.weights + alone.gradients + alone.optimizer, bytes * parameters);
            let shared = Workload { degrees: degrees(5, 1, 1, false), ..workload };
            assert_eq!(per_device(&shared).optimizer, (split * parameters).div_ceil(5));
        }
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
