//! The pipeline schedule of each training, for `plan --schedule`.

use super::Plan;
use super::estimate::workload;
use super::header::bytes;
use crate::layout::memory::of_stage;
use crate::layout::mesh::layers_of_stage;
pub use crate::layout::schedule::draw::Piece;
use crate::layout::schedule::play::{USUAL, play};
use crate::layout::schedule::{QUEUE, Schedule, draw, peak_live, schedule};
use crate::spec::job::Job;
use serde::Serialize;
use std::ops::Range;

/// How a training's micro-batches go through its pipeline.
#[derive(Clone, Debug, Serialize)]
pub struct PipelineView {
    /// The train stage.
    pub stage: String,
    /// Share of the time in which pipeline stages wait, when a backward pass takes as long as two
    /// forward passes.
    pub bubble: f64,
    /// The pipeline stages.
    pub pipeline: Vec<StageView>,
    /// What they do.
    pub schedule: Schedule,
}

/// One pipeline stage.
#[derive(Clone, Debug, Serialize)]
pub struct StageView {
    /// Its layers, a range for each model chunk.
    pub layers: Vec<Range<usize>>,
    /// Forward passes of model chunks whose backward has not begun, at their most.
    pub peak_live: usize,
    /// Bytes that they keep, at their most, with what is computed again.
    pub activations: u64,
    /// All bytes of a device of this stage.
    pub bytes: u64,
}

/// The pipelines of a plan's trainings.
pub fn pipelines(plan: &Plan) -> Vec<PipelineView> {
    let view = |stage: &super::Stage| {
        let Job::Train(job) = &stage.job else { return None };
        let workload = workload(job);
        let (degrees, micro_batches) = (workload.degrees, workload.micro_batches);
        let (stages, chunks) = (degrees.pipeline, degrees.virtual_pipeline);
        let layers = workload.architecture.num_layers;
        let one = |at| {
            let memory = of_stage(&workload, at);
            StageView {
                layers: layers_of_stage(&degrees, layers, at),
                peak_live: peak_live(stages, chunks, micro_batches, at),
                activations: memory.activations,
                bytes: memory.total(),
            }
        };
        let schedule = schedule(stages, chunks, micro_batches);
        // Tests show that no schedule of ours gets stuck.
        let bubble = play(&schedule, USUAL, QUEUE).map_or(1.0, |play| play.bubble());
        let pipeline = (0..stages).map(one).collect();
        Some(PipelineView { stage: stage.name.clone(), bubble, pipeline, schedule })
    };
    plan.stages().iter().filter_map(view).collect()
}

impl PipelineView {
    /// The first line: what kind of schedule it is.
    pub fn title(&self) -> String {
        let Schedule { micro_batches, chunks, stages } = &self.schedule;
        let s = |number: usize| if number == 1 { "" } else { "s" };
        let passes =
            format!("{micro_batches} micro-batch{}", if *micro_batches == 1 { "" } else { "es" });
        match (stages.len(), *chunks) {
            (1, _) => format!("{}: {passes} on one pipeline stage", self.stage),
            (count, 1) => format!("{}: 1F1B, {count} stage{}, {passes}", self.stage, s(count)),
            (count, chunks) => format!(
                "{}: interleaved 1F1B, {count} stage{} × {chunks} chunks, {passes}",
                self.stage,
                s(count)
            ),
        }
    }

    /// Whether pipeline stages have several model chunks.
    pub fn schedule_has_chunks(&self) -> bool {
        self.schedule.chunks > 1
    }

    /// The grid, a line for each pipeline stage, at most `columns` wide.
    pub fn grid(&self, columns: usize) -> Vec<Vec<Piece>> {
        let play = play(&self.schedule, USUAL, QUEUE);
        play.map(|play| draw::lines(&play, self.schedule.chunks, columns)).unwrap_or_default()
    }

    /// What each pipeline stage holds, as a table.
    pub fn table(&self) -> Vec<String> {
        let layers = |stage: &StageView| {
            let layers = stage.layers.iter().map(|range| match range.len() {
                1 => range.start.to_string(),
                _ => format!("{}–{}", range.start, range.end - 1),
            });
            layers.collect::<Vec<_>>().join(", ")
        };
        let kept =
            if self.schedule.chunks > 1 { "micro-batches × chunks" } else { "micro-batches" };
        let head = ["stage", "layers", &format!("kept {kept}"), "activations", "memory"];
        let head = head.map(str::to_owned);
        let rows = self.pipeline.iter().enumerate().map(|(at, stage)| {
            [
                at.to_string(),
                layers(stage),
                stage.peak_live.to_string(),
                bytes(stage.activations),
                bytes(stage.bytes),
            ]
        });
        let rows: Vec<[String; 5]> = std::iter::once(head).chain(rows).collect();
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
        let widths: Vec<usize> = (0..5).filter_map(width).collect();
        let line = |row: &[String; 5]| {
            let cells = row.iter().zip(&widths).enumerate().map(|(at, (cell, width))| match at {
                1 => format!("{cell:<width$}"),
                _ => format!("{cell:>width$}"),
            });
            cells.collect::<Vec<_>>().join("  ")
        };
        rows.iter().map(line).collect()
    }
}
