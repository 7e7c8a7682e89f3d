//! How ranks share the work: devices, batches, heads, layers, sequences.

use crate::recipe::findings::{Findings, count};
use crate::spec::recipe::{Model, Trainer};

const TENSOR: &str = "model.tensor_model_parallel_size";
const PIPELINE: &str = "model.pipeline_model_parallel_size";

pub(super) fn check(trainer: &Trainer, model: &Model, findings: &mut Findings) {
    if world(trainer, model, findings) {
        batch(trainer, model, findings);
    }
    accumulation(trainer, model, findings);
    tensor(model, findings);
    pipeline(model, findings);
}

/// Whether the ranks make whole replicas.
fn world(trainer: &Trainer, model: &Model, findings: &mut Findings) -> bool {
    let (devices, nodes) = (trainer.devices.unwrap_or(1), trainer.num_nodes.unwrap_or(1));
    let tensor = model.tensor_model_parallel_size.unwrap_or(1);
    let pipeline = model.pipeline_model_parallel_size.unwrap_or(1);
    let (world, replica) = (devices * nodes, tensor * pipeline);
    if world.is_multiple_of(replica) {
        return true;
    }
    let message = format!(
        "{} × {} = {} cannot be shared by models of {tensor} (tensor) × {pipeline} (pipeline) = {}",
        count(devices, "device"),
        count(nodes, "node"),
        count(world, "rank"),
        count(replica, "rank"),
    );
    findings
        .error("recipe::world_size", "trainer.devices", format!("{devices} per node"), message)
        .with("trainer.num_nodes", count(nodes, "node"))
        .with(TENSOR, format!("splits a model over {tensor}"))
        .with(PIPELINE, format!("splits a model over {pipeline}"))
        .help(format!("make trainer.devices × trainer.num_nodes a multiple of {replica}"));
    false
}

fn batch(trainer: &Trainer, model: &Model, findings: &mut Findings) {
    let (Some(global), Some(micro)) = (model.global_batch_size, model.micro_batch_size) else {
        return;
    };
    let replicas = model.degrees(trainer).data;
    let step = micro * replicas;
    if step == 0 || global.is_multiple_of(step) {
        return;
    }
    let message = format!(
        "a global batch of {global} is no multiple of micro-batches of {micro} on {} = {step}",
        count(replicas, "replica"),
    );
    let (below, above) = (global / step * step, global.next_multiple_of(step));
    let near = if below == 0 { format!("{above} is") } else { format!("{below} and {above} are") };
    let world = trainer.world_size();
    findings
        .error(
            "recipe::batch_size",
            "model.global_batch_size",
            format!("{global} per step"),
            message,
        )
        .with("model.micro_batch_size", format!("{micro} at a time on each replica"))
        .help(format!(
            "{near} possible; replicas = {} / (tensor {} × pipeline {}) = {replicas}",
            count(world, "rank"),
            model.tensor_model_parallel_size.unwrap_or(1),
            model.pipeline_model_parallel_size.unwrap_or(1),
        ));
}

fn accumulation(trainer: &Trainer, model: &Model, findings: &mut Findings) {
    let Some(accumulated) = trainer.accumulate_grad_batches.filter(|times| *times != 1) else {
        return;
    };
    let help = match (model.global_batch_size, model.micro_batch_size) {
        (Some(global), Some(micro)) => {
            let step = micro * model.degrees(trainer).data;
            format!(
                "set it to 1: global_batch_size {global} / (micro_batch_size × replicas = {step}) = {} \
                 micro-batches are accumulated; to accumulate {accumulated}, set model.global_batch_size={}",
                global.checked_div(step).unwrap_or(0),
                u64::try_from(step).map_or(0, |step| step * accumulated),
            )
        }
        _ => "set it to 1 and give model.global_batch_size and model.micro_batch_size".to_owned(),
    };
    let message = format!(
        "accumulate_grad_batches is {accumulated}, but accumulation follows from the batch sizes"
    );
    findings
        .error("recipe::accumulation", "trainer.accumulate_grad_batches", "must be 1", message)
        .help(help);
}

fn tensor(model: &Model, findings: &mut Findings) {
    let tensor = model.tensor_model_parallel_size.unwrap_or(1);
    let split = |value: Option<usize>| value.filter(|value| !value.is_multiple_of(tensor));
    let parts = [
        ("model.num_attention_heads", "attention heads", split(model.num_attention_heads)),
        ("model.num_query_groups", "query groups", split(model.num_query_groups)),
        ("model.ffn_hidden_size", "channels of the MLP", split(model.ffn_width())),
    ];
    for (path, what, value) in parts {
        let Some(value) = value else { continue };
        findings
            .error(
                "recipe::tensor_split",
                path,
                format!("{value} {what}"),
                format!("{value} {what} cannot be split evenly over {tensor} tensor ranks"),
            )
            .with(TENSOR, format!("{tensor} tensor ranks"))
            .help(format!(
                "make {path} a multiple of {tensor}, or choose a {TENSOR} that divides {value}"
            ));
    }
    let sequence = model.sequence_parallel.unwrap_or(false) && tensor > 1;
    if let Some(length) = split(model.encoder_seq_length).filter(|_| sequence) {
        findings
            .error(
                "recipe::sequence_split",
                "model.encoder_seq_length",
                format!("{length} tokens"),
                format!("sequence_parallel cannot split {length} tokens evenly over {tensor} tensor ranks"),
            )
            .with("model.sequence_parallel", "asked for here")
            .with(TENSOR, format!("{tensor} tensor ranks"))
            .help(format!("make model.encoder_seq_length a multiple of {tensor}"));
    }
}

fn pipeline(model: &Model, findings: &mut Findings) {
    let pipeline = model.pipeline_model_parallel_size.unwrap_or(1);
    let chunks = model.virtual_pipeline_model_parallel_size.unwrap_or(1);
    let virtual_path = "model.virtual_pipeline_model_parallel_size";
    if chunks > 1 && pipeline == 1 {
        findings
            .error(
                "recipe::pipeline_split",
                virtual_path,
                format!("{chunks} chunks per pipeline stage"),
                format!("{chunks} chunks per pipeline stage need a pipeline, but there is 1 pipeline stage"),
            )
            .with(PIPELINE, "1 pipeline stage")
            .help(format!("set {PIPELINE} to 2 or more, or {virtual_path} to null"));
        return;
    }
    let Some(layers) = model.num_layers.filter(|layers| !layers.is_multiple_of(pipeline * chunks))
    else {
        return;
    };
    let parts = if chunks > 1 {
        format!("{pipeline} pipeline stages × {chunks} chunks = {}", pipeline * chunks)
    } else {
        format!("{pipeline} pipeline stages")
    };
    findings
        .error(
            "recipe::pipeline_split",
            "model.num_layers",
            format!("{layers} layers"),
            format!("{layers} layers cannot be split evenly over {parts}"),
        )
        .with(PIPELINE, format!("{pipeline} pipeline stages"))
        .with(virtual_path, format!("{chunks} chunks in each"))
        .help(format!("make model.num_layers a multiple of {}", pipeline * chunks));
}
