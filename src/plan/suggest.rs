//! Layouts and micro-batch sizes that fit a training's devices, for `plan --suggest`.

use super::Plan;
use super::estimate::workload;
use super::header::bytes;
use crate::layout::fit::{Cluster, Costs, Proposal, proposal, proposals};
use crate::spec::job::{Job, TrainJob};
use crate::spec::optimization::{Degrees, Recompute};
use serde::Serialize;

/// What can be chosen for a training.
#[derive(Clone, Debug, Serialize)]
pub struct Suggestions {
    /// The train stage.
    pub stage: String,
    /// Ranks in all.
    pub ranks: usize,
    /// Bytes of a device, or of the machine whose memory the ranks share.
    pub memory: u64,
    /// The recipe's own layout.
    pub current: Suggestion,
    /// Layouts that fit, best first.
    pub suggestions: Vec<Suggestion>,
}

/// A layout.
#[derive(Clone, Debug, Serialize)]
pub struct Suggestion {
    /// Ranks along each axis.
    pub degrees: Degrees,
    /// Sequences per forward pass.
    pub micro_batch_size: usize,
    /// `none`, `selective` or `full`.
    pub recompute: &'static str,
    /// Bytes of the fullest device.
    pub bytes: u64,
    /// Whether it fits.
    pub fits: bool,
    /// Extra time, as a share of that of the matrix products.
    pub extra_time: f64,
    /// Where the extra time goes, what costs most first.
    pub reasons: Vec<String>,
    /// What to put behind the recipe on the command line to get it.
    pub overrides: Vec<String>,
}

/// Suggestions for each training whose devices' memory is known.
pub fn suggestions(plan: &Plan) -> Vec<Suggestions> {
    let of = |stage: &super::Stage| {
        let Job::Train(job) = &stage.job else { return None };
        let header = plan.headers().iter().find(|header| header.stage == stage.name)?;
        let cluster = header.cluster?;
        let workload = workload(job);
        let one = |found: &Proposal| suggestion(job, &cluster, found);
        let mut current = one(&proposal(&workload, &cluster));
        current.fits = cluster.holds(&workload);
        let found = proposals(&workload, job.model.global_batch_size, &cluster);
        Some(Suggestions {
            stage: stage.name.clone(),
            ranks: workload.degrees.world_size(),
            memory: cluster.memory,
            current,
            suggestions: found.iter().map(one).collect(),
        })
    };
    plan.stages().iter().filter_map(of).collect()
}

fn suggestion(job: &TrainJob, cluster: &Cluster, found: &Proposal) -> Suggestion {
    let now = (job.trainer.degrees, job.model.micro_batch_size, job.model.recompute);
    Suggestion {
        degrees: found.degrees,
        micro_batch_size: found.micro_batch_size,
        recompute: word(found.recompute),
        bytes: found.memory.total(),
        fits: found.memory.total() <= cluster.memory,
        extra_time: found.costs.total(),
        reasons: reasons(&found.costs),
        overrides: overrides(now, found),
    }
}

fn word(recompute: Recompute) -> &'static str {
    match recompute {
        Recompute::None => "none",
        Recompute::Selective => "selective",
        Recompute::Uniform(_) | Recompute::Block(_) => "full",
    }
}

/// `bubble 9 %`, `tensor 5 %` (traffic of the tensor ranks), …: what costs most first.
fn reasons(costs: &Costs) -> Vec<String> {
    let mut named = vec![
        (costs.bubble, "bubble"),
        (costs.tensor, "tensor"),
        (costs.pipeline, "pipeline"),
        (costs.data, "data"),
        (costs.again, "recompute"),
        (costs.small, "small batch"),
    ];
    named.retain(|(share, _)| *share >= 0.005);
    named.sort_by(|a, b| b.0.total_cmp(&a.0));
    named.iter().map(|(share, name)| format!("{name} {:.0} %", 100.0 * share)).collect()
}

/// As many of `words` as stand in `columns`, the first in any case.
fn fitting(words: &[String], columns: usize) -> String {
    let mut text = String::new();
    for word in words {
        let comma = if text.is_empty() { "" } else { ", " };
        let length = text.chars().count() + comma.len() + word.chars().count();
        if length > columns && !text.is_empty() {
            break;
        }
        text.push_str(comma);
        text.push_str(word);
    }
    text
}

/// The settings that differ from what the recipe has.
fn overrides(now: (Degrees, usize, Recompute), found: &Proposal) -> Vec<String> {
    let (degrees, micro_batch_size, recompute) = now;
    let wanted = &found.degrees;
    let mut set = Vec::new();
    let mut change = |differs: bool, key: &str, value: String| {
        if differs {
            set.push(format!("++model.{key}={value}"));
        }
    };
    let null = |number: usize| if number > 1 { number.to_string() } else { "null".to_owned() };
    let (tensor, pipeline) = (wanted.tensor, wanted.pipeline);
    let chunks = wanted.virtual_pipeline;
    change(tensor != degrees.tensor, "tensor_model_parallel_size", tensor.to_string());
    change(pipeline != degrees.pipeline, "pipeline_model_parallel_size", pipeline.to_string());
    let other_chunks = chunks != degrees.virtual_pipeline;
    change(other_chunks, "virtual_pipeline_model_parallel_size", null(chunks));
    change(wanted.sequence != degrees.sequence, "sequence_parallel", wanted.sequence.to_string());
    let size = found.micro_batch_size;
    change(size != micro_batch_size, "micro_batch_size", size.to_string());
    if found.recompute != recompute {
        let granularity = match found.recompute {
            Recompute::None => "null",
            Recompute::Selective => "selective",
            Recompute::Uniform(_) | Recompute::Block(_) => "full",
        };
        change(true, "activations_checkpoint_granularity", granularity.to_owned());
        // The other two keys belong to full recomputation.
        let full = matches!(found.recompute, Recompute::Uniform(_));
        change(full, "activations_checkpoint_method", "uniform".to_owned());
        change(full, "activations_checkpoint_num_layers", "1".to_owned());
    }
    set
}

impl Suggestions {
    /// A table for people, at most `most` layouts, in `columns` columns.
    pub fn table(&self, most: usize, columns: usize) -> String {
        let memory = bytes(self.memory);
        let mut text = format!("{}: {} ranks, {memory} each\n", self.stage, self.ranks);
        let title = "      TP  PP  VP   DP   SP  micro  recompute     memory    extra";
        text.push_str(&format!("{title}\n"));
        let room = columns.saturating_sub(title.chars().count() + 2);
        let mut row = |mark: &str, one: &Suggestion| {
            let Degrees { tensor, pipeline, virtual_pipeline: chunks, data, sequence } =
                one.degrees;
            let sequence = if sequence { "yes" } else { "no" };
            let mut reasons = one.reasons.clone();
            if !one.fits {
                reasons.insert(0, "DOES NOT FIT".to_owned());
            }
            let line = format!(
                "{mark:>4} {tensor:>3} {pipeline:>3} {chunks:>3} {data:>4}  {sequence:>3}  {:>5}  {:<9} {:>10} {:>6.0} %  {}",
                one.micro_batch_size,
                one.recompute,
                bytes(one.bytes),
                100.0 * one.extra_time,
                fitting(&reasons, room),
            );
            text.push_str(&format!("{}\n", line.trim_end()));
        };
        row("now", &self.current);
        for (at, one) in self.suggestions.iter().take(most).enumerate() {
            row(&(at + 1).to_string(), one);
        }
        text.push_str(
            "extra: beyond the matrix products, by cause (tensor, pipeline, data: traffic)\n",
        );
        match self.suggestions.first() {
            None => text.push_str(
                "no layout of these devices fits: take more devices, or shorter sequences\n",
            ),
            Some(best) if best.overrides.is_empty() => {
                text.push_str("the recipe has the best one\n");
            }
            Some(best) => text.push_str(&format!("to get 1: {}\n", best.overrides.join(" "))),
        }
        text
    }
}
