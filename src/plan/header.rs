//! The first lines of a plan: layout, batch, size and length of the training.

use super::estimate::parts;
use crate::base::numbers::count as separated;
use crate::layout::fit::Cluster;
use crate::layout::memory::DeviceMemory;
use crate::spec::optimization::Degrees;
use serde::Serialize;
use std::fmt;

/// Numbers about the training.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Header {
    /// The train stage.
    pub stage: String,
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
    /// Bytes on the fullest device, by formula.
    pub bytes_per_device: u64,
    /// Its parts.
    pub memory: DeviceMemory,
    /// The devices, when their memory is known.
    #[serde(skip)]
    pub cluster: Option<Cluster>,
    /// Training sequences, once the data has been cut into them.
    pub sequences: Option<u64>,
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
        let bytes = bytes(self.bytes_per_device);
        write!(formatter, "   about {bytes} on each {}", self.device_kind)?;
        let (steps, tokens) = (separated(self.steps), separated(self.step_tokens() as u64));
        write!(formatter, "   {steps} steps of at most {tokens} tokens")?;
        if let (Some(sequences), Some(epochs)) = (self.sequences.map(separated), self.epochs()) {
            write!(formatter, ", {epochs:.2} epochs of {sequences} sequences")?;
        }
        write!(formatter, "\n{}", parts(&self.memory))
    }
}

impl Header {
    /// How often every sequence is seen, once their number is known.
    pub fn epochs(&self) -> Option<f64> {
        let sequences = self.sequences.filter(|sequences| *sequences > 0)?;
        Some(self.steps as f64 * self.global_batch_size as f64 / sequences as f64)
    }

    /// Most tokens that a step reads.
    pub fn step_tokens(&self) -> usize {
        self.global_batch_size * self.sequence_length
    }
}

/// Bytes with three digits and a unit.
pub fn bytes(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = usize::from(unit > 0 && value < 100.0);
    format!("{value:.digits$} {}", units[unit])
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
