//! Which layouts and micro-batch sizes fit the devices, and what each costs.
//!
//! Costs are estimates for comparing layouts, not predictions of time: shares of the time that the
//! matrix products take alone. The bubble is the schedule's; traffic is the published volume of each
//! collective (Korthikanti et al. 2022; Rajbhandari et al. 2020) over the speeds of [`Machine`].

use super::memory::{DeviceMemory, Workload, of_stage, per_device};
use crate::spec::architecture::Architecture;
use crate::spec::optimization::{Degrees, Precision, Recompute};

/// The devices that a run has.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cluster {
    /// Machines.
    pub nodes: usize,
    /// Devices of each.
    pub devices: usize,
    /// Bytes that one device has; when they are shared, bytes of the machine.
    pub memory: u64,
    /// Whether the devices of a machine share its memory, as the threads of a processor do.
    pub shared: bool,
}

impl Cluster {
    /// Bytes that are to fit into [`Cluster::memory`]: the fullest device's, or a machine's share of
    /// all ranks together.
    pub fn taken(&self, workload: &Workload<'_>) -> u64 {
        let Degrees { pipeline, tensor, data, .. } = workload.degrees;
        if !self.shared {
            return per_device(workload).total();
        }
        let stages = (0..pipeline).map(|stage| of_stage(workload, stage).total());
        stages.sum::<u64>() * (tensor * data) as u64 / self.nodes.max(1) as u64
    }

    /// Whether the workload fits.
    pub fn holds(&self, workload: &Workload<'_>) -> bool {
        self.taken(workload) <= self.memory
    }
}

/// Speeds of one device, for comparing layouts.
#[derive(Clone, Copy, Debug)]
struct Machine {
    /// Floating-point operations per second in large matrix products.
    operations: f64,
    /// Bytes per second to the other devices of the machine.
    near: f64,
    /// Bytes per second to other machines.
    far: f64,
}

/// About an H100 with `NVLink` 4 and 400 Gbit/s a device to other machines, in bf16.
const GPU: Machine = Machine { operations: 4e14, near: 3e11, far: 4e10 };
/// About a core and its memory.
const CPU: Machine = Machine { operations: 5e10, near: 5e9, far: 1e9 };
/// Tokens of a micro-batch at which launching takes as long as computing.
const FEW_TOKENS: f64 = 128.0;

/// A layout that fits.
#[derive(Clone, Debug, PartialEq)]
pub struct Proposal {
    /// Ranks along each axis.
    pub degrees: Degrees,
    /// Sequences per forward pass.
    pub micro_batch_size: usize,
    /// What is computed again.
    pub recompute: Recompute,
    /// Bytes of the fullest device.
    pub memory: DeviceMemory,
    /// What it costs.
    pub costs: Costs,
}

/// Extra time as shares of the time of the matrix products.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Costs {
    /// Waiting for other pipeline stages.
    pub bubble: f64,
    /// Sums over the tensor ranks.
    pub tensor: f64,
    /// Handing on between pipeline stages.
    pub pipeline: f64,
    /// Sums over the replicas; half of them run beside the backward pass.
    pub data: f64,
    /// Computing again.
    pub again: f64,
    /// Micro-batches too small to fill a device.
    pub small: f64,
}

impl Costs {
    /// All of them.
    pub fn total(&self) -> f64 {
        self.bubble + self.tensor + self.pipeline + self.data + self.again + self.small
    }
}

/// The best choice for each split of the ranks that fits, best first; `base` gives what stays as it
/// is, its degrees the number of ranks.
pub fn proposals(base: &Workload<'_>, global_batch: usize, cluster: &Cluster) -> Vec<Proposal> {
    let world = base.degrees.world_size();
    let mut best: Vec<Proposal> = Vec::new();
    for tensor in divisors(world) {
        if !splits(base.architecture, tensor) || (tensor > cluster.devices && !cluster.shared) {
            continue;
        }
        for pipeline in divisors(world / tensor) {
            let data = world / tensor / pipeline;
            let fitting = choices(base, global_batch, [tensor, pipeline, data])
                .filter(|choice| cluster.holds(choice))
                .map(|choice| proposal(&choice, cluster));
            best.extend(fitting.min_by(|a, b| a.costs.total().total_cmp(&b.costs.total())));
        }
    }
    best.sort_by(|a, b| a.costs.total().total_cmp(&b.costs.total()));
    best
}

/// What `workload` costs, whether it fits or not.
pub fn proposal(workload: &Workload<'_>, cluster: &Cluster) -> Proposal {
    Proposal {
        degrees: workload.degrees,
        micro_batch_size: workload.micro_batch_size,
        recompute: workload.recompute,
        memory: per_device(workload),
        costs: costs(workload, cluster),
    }
}

/// Every micro-batch size, number of chunks and recomputation for a split of the ranks.
fn choices<'a>(
    base: &Workload<'a>,
    global_batch: usize,
    [tensor, pipeline, data]: [usize; 3],
) -> impl Iterator<Item = Workload<'a>> {
    let (base, layers) = (*base, base.architecture.num_layers);
    let chunks: &[usize] = if pipeline > 1 { &[1, 2, 4] } else { &[1] };
    let sequence = tensor > 1 && base.seq_length.is_multiple_of(tensor);
    let each = if global_batch.is_multiple_of(data) { global_batch / data } else { 0 };
    let sizes = divisors(each).into_iter().filter(|size| size.is_power_of_two());
    let again = [Recompute::None, Recompute::Selective, Recompute::Uniform(1)];
    let layouts = chunks.iter().filter(move |chunks| layers.is_multiple_of(pipeline * *chunks));
    let layouts = layouts.map(move |chunks| Degrees {
        data,
        pipeline,
        virtual_pipeline: *chunks,
        tensor,
        sequence,
    });
    let sizes: Vec<usize> = sizes.collect();
    layouts.flat_map(move |degrees| {
        let sizes = sizes.clone();
        again.into_iter().flat_map(move |recompute| {
            sizes.clone().into_iter().map(move |micro_batch_size| Workload {
                degrees,
                recompute,
                micro_batch_size,
                micro_batches: each / micro_batch_size,
                ..base
            })
        })
    })
}

/// Whether `tensor` ranks can split the layers.
fn splits(model: &Architecture, tensor: usize) -> bool {
    [
        model.num_attention_heads,
        model.num_query_groups,
        model.ffn_hidden_size,
        model.padded_vocab_size,
    ]
    .iter()
    .all(|width| width.is_multiple_of(tensor))
}

fn costs(workload: &Workload<'_>, cluster: &Cluster) -> Costs {
    let machine = if cluster.shared { CPU } else { GPU };
    let Degrees { data, pipeline, virtual_pipeline: chunks, tensor, sequence } = workload.degrees;
    let model = workload.architecture;
    let layers = (model.num_layers / pipeline) as f64;
    let pass = (workload.seq_length * workload.micro_batch_size) as f64;
    let tokens = pass * workload.micro_batches as f64;
    // Operations of one token in the forward pass of one layer.
    let width = (model.num_attention_heads * model.kv_channels) as f64;
    let key_value = 2.0 * (model.num_query_groups * model.kv_channels) as f64;
    let (hidden, inner) = (model.hidden_size as f64, model.ffn_hidden_size as f64);
    let halves = if model.activation.is_gated() { 3.0 } else { 2.0 };
    let core = 2.0 * workload.seq_length as f64 * width;
    let block = 2.0 * hidden * (2.0 * width + key_value + halves * inner) + core;
    let head = 2.0 * hidden * model.padded_vocab_size as f64;
    let operations =
        3.0 * tokens * (block * model.num_layers as f64 + head) / (pipeline * tensor) as f64;
    let time = operations / machine.operations;
    let share =
        |bytes: f64, near: bool| bytes / if near { machine.near } else { machine.far } / time;

    let number = if workload.precision == Precision::Fp32 { 4.0 } else { 2.0 };
    let stream = tokens * hidden * number;
    let ring = |ranks: usize| (ranks - 1) as f64 / ranks as f64;
    let forwards = if matches!(workload.recompute, Recompute::Uniform(_) | Recompute::Block(_)) {
        3.0
    } else {
        2.0
    };
    let sums = 2.0 * forwards * 2.0 * ring(tensor) * layers * stream;
    let handed = if pipeline > 1 { 2.0 * chunks as f64 * stream } else { 0.0 };
    let handed = if sequence { handed / tensor as f64 } else { handed };
    let parameters = per_device(workload).parameters as f64;
    let replicas = ring(data) * parameters * (4.0 + number) / 2.0;
    let computed_again = match workload.recompute {
        Recompute::None => 0.0,
        Recompute::Selective => core,
        Recompute::Uniform(_) => block,
        Recompute::Block(count) => block * (count as f64 * chunks as f64 / layers).min(1.0),
    };
    Costs {
        bubble: (pipeline - 1) as f64 / (chunks * workload.micro_batches) as f64,
        tensor: share(sums, tensor <= cluster.devices),
        pipeline: share(handed, cluster.nodes == 1),
        data: share(replicas, tensor * data <= cluster.devices),
        again: tokens * computed_again * layers / tensor as f64 / operations,
        small: FEW_TOKENS / pass,
    }
}

fn divisors(number: usize) -> Vec<usize> {
    (1..=number).filter(|divisor| number.is_multiple_of(*divisor)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::parameters::llama_7b;

    const NODE: Cluster = Cluster { nodes: 1, devices: 8, memory: 80 << 30, shared: false };

    fn workload(model: &Architecture, ranks: usize) -> Workload<'_> {
        Workload {
            architecture: model,
            seq_length: 2048,
            micro_batch_size: 1,
            micro_batches: 1,
            degrees: Degrees { data: ranks, ..Degrees::SINGLE },
            precision: Precision::Bf16,
            megatron_amp_o2: true,
            distributed_optimizer: true,
            recompute: Recompute::None,
            frozen: &[],
        }
    }

    #[test]
    fn everything_proposed_fits_uses_all_ranks_and_cuts_the_batch() {
        let model = llama_7b();
        let found = proposals(&workload(&model, 8), 64, &NODE);
        assert!(found.len() > 4);
        for one in &found {
            assert!(one.memory.total() <= NODE.memory);
            assert_eq!(one.degrees.world_size(), 8);
            assert_eq!(64 % (one.micro_batch_size * one.degrees.data), 0);
            let parts = one.degrees.pipeline * one.degrees.virtual_pipeline;
            assert_eq!(model.num_layers % parts, 0);
        }
        let totals: Vec<f64> = found.iter().map(|one| one.costs.total()).collect();
        assert!(totals.is_sorted());
    }

    #[test]
    fn little_memory_asks_for_more_splitting_and_none_for_nothing() {
        let model = llama_7b();
        let best = |memory: u64| {
            let cluster = Cluster { memory, ..NODE };
            proposals(&workload(&model, 8), 64, &cluster).into_iter().next()
        };
        let parts = |one: Proposal| one.degrees.tensor * one.degrees.pipeline;
        let (roomy, tight) = (best(80 << 30).map(parts), best(20 << 30).map(parts));
        assert!(roomy < tight, "{roomy:?} {tight:?}");
        assert_eq!(best(1 << 30), None);
    }

    #[test]
    fn threads_share_the_memory_of_their_machine() {
        let model = llama_7b();
        let (one, four) = (workload(&model, 1), workload(&model, 4));
        let cluster = Cluster { shared: true, ..NODE };
        // The distributed optimizer's 12 of 18 bytes stand once; the other 6 on every rank.
        assert!(cluster.taken(&four) > cluster.taken(&one) * 3 / 2);
        assert!(NODE.taken(&four) < NODE.taken(&one));
    }
}
