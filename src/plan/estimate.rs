//! Whether a training fits its devices: which part of the memory is too large, and what cuts it.

use super::header::bytes;
use super::outside::Facts;
use super::stage::Missing;
use crate::layout::fit::{Cluster, proposals};
use crate::layout::memory::{DeviceMemory, Workload, per_device};
use crate::spec::job::TrainJob;
use crate::spec::optimization::{Degrees, OptimizerName, Precision, Recompute};
use crate::spec::recipe::Trainer;

/// What the memory of a training depends on.
pub(super) fn workload(job: &TrainJob) -> Workload<'_> {
    let degrees = job.trainer.degrees;
    let per_pass = (job.model.micro_batch_size * degrees.data).max(1);
    Workload {
        architecture: &job.model.architecture,
        seq_length: job.model.encoder_seq_length,
        micro_batch_size: job.model.micro_batch_size,
        micro_batches: (job.model.global_batch_size / per_pass).max(1),
        degrees,
        precision: job.trainer.precision,
        megatron_amp_o2: job.model.megatron_amp_o2,
        distributed_optimizer: job.model.optim.name == OptimizerName::DistributedFusedAdam,
        recompute: job.model.recompute,
        frozen: &job.model.frozen,
    }
}

/// The devices that a recipe asks for; none while their memory is not known.
pub(super) fn cluster(trainer: &Trainer, facts: &Facts) -> Option<Cluster> {
    let shared = !trainer.on_gpu();
    let memory = if shared { facts.host_memory } else { facts.gpu_memory };
    Some(Cluster {
        nodes: trainer.num_nodes.unwrap_or(1),
        devices: trainer.devices.unwrap_or(1),
        memory: memory?,
        shared,
    })
}

/// Why a training does not fit, and what to change; none when it fits or nobody knows.
pub(super) fn too_large(job: &TrainJob, trainer: &Trainer, facts: &Facts) -> Option<Missing> {
    let (cluster, workload) = (cluster(trainer, facts)?, workload(job));
    if cluster.holds(&workload) {
        return None;
    }
    let (taken, has) = (bytes(cluster.taken(&workload)), bytes(cluster.memory));
    let memory = per_device(&workload);
    let (part, key) = largest(&workload, &memory);
    let place = match (cluster.shared, workload.degrees.world_size()) {
        (false, _) => format!("{taken} on each GPU, which has {has}"),
        (true, 1) => format!("{taken} of memory, where this machine has {has}"),
        (true, ranks) => {
            format!("{taken} of memory for {ranks} ranks, where this machine has {has}")
        }
    };
    Some(Missing {
        what: format!("{place}: {}; cut {part} first", parts(&memory)),
        key: key.to_owned(),
        help: help(job, &workload, &cluster),
    })
}

/// The parts of a device's memory, for people.
pub(super) fn parts(memory: &DeviceMemory) -> String {
    let DeviceMemory { weights, gradients, optimizer, activations, working, .. } = *memory;
    format!(
        "weights {}, gradients {}, optimizer {}, activations {}, working {}",
        bytes(weights),
        bytes(gradients),
        bytes(optimizer),
        bytes(activations),
        bytes(working),
    )
}

/// The largest part and the key that cuts it best.
fn largest(workload: &Workload<'_>, memory: &DeviceMemory) -> (&'static str, &'static str) {
    let split = "model.tensor_model_parallel_size";
    let shares = !workload.distributed_optimizer && workload.degrees.data > 1;
    let parts = [
        (memory.weights, "the weights", split),
        (memory.gradients, "the gradients", split),
        (
            memory.optimizer,
            "the optimizer's state",
            if shares { "model.optim.name" } else { split },
        ),
        (memory.activations, "the activations", "model.micro_batch_size"),
        (memory.working, "the working memory", "model.micro_batch_size"),
    ];
    let (_, name, key) = parts.into_iter().max_by_key(|(bytes, ..)| *bytes).unwrap_or_default();
    (name, key)
}

/// The smallest change of each setting that is enough, or how many layouts fit.
fn help(job: &TrainJob, workload: &Workload<'_>, cluster: &Cluster) -> String {
    let mut enough: Vec<(&str, String)> = Vec::new();
    for (key, value, changed) in changes(workload) {
        if cluster.holds(&changed) && enough.iter().all(|(known, _)| *known != key) {
            let taken = bytes(cluster.taken(&changed));
            enough.push((key, format!("{key}={value} ({taken})")));
        }
    }
    if !enough.is_empty() {
        let enough: Vec<_> = enough.into_iter().map(|(_, text)| text).collect();
        return format!("one of these is enough: {}", enough.join(", "));
    }
    let layouts = proposals(workload, job.model.global_batch_size, cluster);
    if layouts.is_empty() {
        let longer = "take more devices, more memory, or a shorter model.encoder_seq_length";
        return format!("no layout of these devices holds it: {longer}");
    }
    format!(
        "no single setting is enough; `plan --suggest` lists {} layouts that fit",
        layouts.len()
    )
}

/// Changes of one setting that save memory: its key, the value, and what becomes of the workload; of
/// each setting the smallest change first.
fn changes<'a>(workload: &Workload<'a>) -> Vec<(&'static str, String, Workload<'a>)> {
    let base = *workload;
    let Degrees { data, pipeline, tensor, virtual_pipeline, sequence } = base.degrees;
    let mut changes = Vec::new();
    let mut size = base.micro_batch_size;
    while size.is_multiple_of(2) {
        size /= 2;
        let micro_batches = base.micro_batches * (base.micro_batch_size / size);
        let smaller = Workload { micro_batch_size: size, micro_batches, ..base };
        changes.push(("model.micro_batch_size", size.to_string(), smaller));
    }
    for (set, recompute) in [("selective", Recompute::Selective), ("full", Recompute::Uniform(1))] {
        let key = "model.activations_checkpoint_granularity";
        changes.push((key, set.to_owned(), Workload { recompute, ..base }));
    }
    if tensor > 1 && !sequence {
        let degrees = Degrees { sequence: true, ..base.degrees };
        changes.push(("model.sequence_parallel", "true".to_owned(), Workload { degrees, ..base }));
    }
    if data > 1 && !base.distributed_optimizer {
        let set = "distributed_fused_adam".to_owned();
        changes.push(("model.optim.name", set, Workload { distributed_optimizer: true, ..base }));
    }
    if base.precision != Precision::Fp32 && !base.megatron_amp_o2 {
        let parameters = Workload { megatron_amp_o2: true, ..base };
        changes.push(("model.megatron_amp_O2", "true".to_owned(), parameters));
    }
    for factor in [2, 4, 8].into_iter().filter(|factor| data.is_multiple_of(*factor)) {
        let micro_batches = base.micro_batches * factor;
        let data = data / factor;
        let model = base.architecture;
        if model.num_query_groups.is_multiple_of(tensor * factor) {
            let degrees = Degrees { tensor: tensor * factor, data, ..base.degrees };
            let split = Workload { micro_batches, degrees, ..base };
            changes.push(("model.tensor_model_parallel_size", degrees.tensor.to_string(), split));
        }
        if model.num_layers.is_multiple_of(pipeline * factor * virtual_pipeline) {
            let degrees = Degrees { pipeline: pipeline * factor, data, ..base.degrees };
            let split = Workload { micro_batches, degrees, ..base };
            let stages = degrees.pipeline.to_string();
            changes.push(("model.pipeline_model_parallel_size", stages, split));
        }
    }
    changes
}
