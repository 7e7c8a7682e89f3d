//! The first lines of a plan: layout, batch, size and length of the training.

use crate::spec::optimization::Degrees;
use serde::Serialize;
use std::fmt;

/// Numbers about the training.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Header {
    /// Machines.
    pub num_nodes: usize,
    /// Devices of each.
    pub devices: usize,
    /// What a device is: `CPU` or `GPU`.
    pub device_kind: &'static str,
    /// Ranks along each axis.
    pub degrees: Degrees,
    /// Sequences per step.
    pub global_batch_size: usize,
    /// Sequences per forward pass.
    pub micro_batch_size: usize,
    /// Tokens per sequence.
    pub sequence_length: usize,
    /// Optimizer steps.
    pub steps: u64,
    /// Parameters of the model; the embedding is left out when the vocabulary is not known.
    pub parameters: u64,
    /// Whether the vocabulary's size is known.
    pub vocabulary_known: bool,
    /// Bytes on one device, when the formulas cover this layout.
    pub bytes_per_device: Option<u64>,
}

impl Header {
    /// Forward passes per step on each replica.
    pub fn accumulation(&self) -> usize {
        self.global_batch_size / (self.micro_batch_size * self.degrees.data).max(1)
    }
}

impl fmt::Display for Header {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Degrees { data, pipeline, tensor, .. } = self.degrees;
        let s = if self.num_nodes == 1 { "" } else { "s" };
        writeln!(
            formatter,
            "{} node{s} × {} {}   TP{tensor} PP{pipeline} DP{data}   gbs {} = {} × {data} × {}",
            self.num_nodes,
            self.devices,
            self.device_kind,
            self.global_batch_size,
            self.micro_batch_size,
            self.accumulation(),
        )?;
        let unknown = if self.vocabulary_known { "" } else { " without the embedding" };
        write!(formatter, "{} parameters{unknown}", count(self.parameters))?;
        if let Some(bytes) = self.bytes_per_device {
            let device = self.device_kind;
            write!(
                formatter,
                "   about {:.1} GiB per {device}",
                bytes as f64 / (1u64 << 30) as f64
            )?;
        }
        write!(formatter, "   {} steps of {} tokens", self.steps, self.step_tokens())
    }
}

impl Header {
    /// Most tokens that a step reads.
    pub fn step_tokens(&self) -> usize {
        self.global_batch_size * self.sequence_length
    }
}

/// A count with three digits and a letter for thousand, million, milliard.
fn count(number: u64) -> String {
    let steps = [(1e9, "B"), (1e6, "M"), (1e3, "k")];
    let value = number as f64;
    for (unit, letter) in steps {
        if value >= unit {
            let scaled = value / unit;
            let digits = if scaled >= 100.0 {
                0
            } else if scaled >= 10.0 {
                1
            } else {
                2
            };
            return format!("{scaled:.digits$} {letter}");
        }
    }
    number.to_string()
}
