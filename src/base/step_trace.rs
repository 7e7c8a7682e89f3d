//! The bits of every step's loss and gradient norm, by which two runs are held to each other.
//!
//! A trace file is a record of 24 bytes for each step, little-endian: the step (`u64`), its loss and
//! its gradient norm (`f64`). Unlike a line of metrics it holds nothing that was measured, so the
//! file is the same whenever the run is.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

/// The file's name in the output of a train stage.
pub const FILE: &str = "trace.bin";

/// Bytes of a record.
const RECORD: usize = 24;
/// Steps whose bits stand together in the text form.
const PER_LINE: u64 = 100;

/// What one step came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TracedStep {
    /// Its number, from 1.
    pub step: u64,
    /// Its loss per learned token, in nats.
    pub loss: f64,
    /// Its gradient norm before clipping.
    pub grad_norm: f64,
}

impl TracedStep {
    /// Whether both have the same bits.
    pub fn same_bits(&self, other: &TracedStep) -> bool {
        let bits = |one: &TracedStep| (one.step, one.loss.to_bits(), one.grad_norm.to_bits());
        bits(self) == bits(other)
    }

    fn bytes(&self) -> [u8; RECORD] {
        let mut bytes = [0; RECORD];
        bytes[..8].copy_from_slice(&self.step.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.loss.to_le_bytes());
        bytes[16..].copy_from_slice(&self.grad_norm.to_le_bytes());
        bytes
    }

    fn of(record: &[u8]) -> TracedStep {
        let eight = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&record[at..at + 8]);
            bytes
        };
        TracedStep {
            step: u64::from_le_bytes(eight(0)),
            loss: f64::from_le_bytes(eight(8)),
            grad_norm: f64::from_le_bytes(eight(16)),
        }
    }
}

/// A trace file that steps are added to.
#[derive(Debug)]
pub struct TraceFile(File);

impl TraceFile {
    /// Opens the file at `path` with its records of the first `steps` steps; the rest is cut off.
    pub fn open(path: &Path, steps: u64) -> io::Result<TraceFile> {
        let mut kept = if path.exists() { read(path)? } else { Vec::new() };
        kept.retain(|one| one.step <= steps);
        let bytes: Vec<u8> = kept.iter().flat_map(TracedStep::bytes).collect();
        super::atomic_file::write(path, &bytes)?;
        Ok(TraceFile(OpenOptions::new().append(true).open(path)?))
    }

    /// Adds a step, in one write, so that a killed process leaves at most its last record broken.
    pub fn push(&mut self, step: &TracedStep) -> io::Result<()> {
        self.0.write_all(&step.bytes())
    }

    /// Makes the records durable.
    pub fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

/// The records of the file at `path`; a broken last one is left out.
pub fn read(path: &Path) -> io::Result<Vec<TracedStep>> {
    Ok(fs::read(path)?.chunks_exact(RECORD).map(TracedStep::of).collect())
}

/// The trace as text: under each line's first step the bits of up to 100 steps, 16 hexadecimal
/// digits for the loss and 16 for the gradient norm of each.
///
/// `trace` holds every step of the run in order, from 1 on or from where a checkpoint let it begin;
/// what stands after a gap is left out.
pub fn to_text(trace: &[TracedStep]) -> BTreeMap<String, String> {
    let mut lines: BTreeMap<String, String> = BTreeMap::new();
    let begin = trace.first().map_or(1, |one| one.step);
    let whole = trace.iter().zip(begin..).take_while(|(one, number)| one.step == *number);
    for (one, number) in whole {
        let first = ((number - 1) / PER_LINE * PER_LINE + 1).max(begin);
        let bits = format!("{:016x}{:016x}", one.loss.to_bits(), one.grad_norm.to_bits());
        lines.entry(format!("{first:08}")).or_default().push_str(&bits);
    }
    lines
}

/// The trace that [`to_text`] wrote; none when the text is not one.
pub fn from_text(lines: &BTreeMap<String, String>) -> Option<Vec<TracedStep>> {
    let mut trace = Vec::new();
    for (first, bits) in lines {
        let first: u64 = first.parse().ok()?;
        if !bits.is_ascii() || bits.len() % 32 != 0 {
            return None;
        }
        for (at, step) in (0..bits.len()).step_by(32).zip(first..) {
            let number =
                |from: usize| u64::from_str_radix(&bits[from..from + 16], 16).map(f64::from_bits);
            let (loss, grad_norm) = (number(at).ok()?, number(at + 16).ok()?);
            trace.push(TracedStep { step, loss, grad_norm });
        }
    }
    Some(trace)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(steps: u64) -> Vec<TracedStep> {
        let one = |step: u64| TracedStep {
            step,
            loss: 1.0 / step as f64,
            grad_norm: (step as f64).sqrt(),
        };
        (1..=steps).map(one).collect()
    }

    #[test]
    fn a_resumed_file_goes_on_after_the_checkpoint() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        let all = trace(6);
        let mut file = TraceFile::open(&path, 0).unwrap();
        all[..5].iter().for_each(|step| file.push(step).unwrap());
        file.0.write_all(&[1, 2, 3]).unwrap();
        let mut file = TraceFile::open(&path, 3).unwrap();
        all[3..].iter().for_each(|step| file.push(step).unwrap());
        assert_eq!(read(&path).unwrap(), all);
    }

    #[test]
    fn the_text_form_gives_the_same_bits_back() {
        let mut all = trace(250);
        all[7].loss = f64::NAN;
        let text = to_text(&all);
        let keys: Vec<_> = text.keys().map(String::as_str).collect();
        assert_eq!(keys, ["00000001", "00000101", "00000201"]);
        let back = from_text(&text).unwrap();
        assert!(back.len() == all.len() && back.iter().zip(&all).all(|(a, b)| a.same_bits(b)));
        let text = to_text(&all[149..]);
        let keys: Vec<_> = text.keys().map(String::as_str).collect();
        assert_eq!(keys, ["00000150", "00000201"]);
        assert_eq!(from_text(&text).unwrap(), all[149..]);
        assert_eq!(from_text(&BTreeMap::from([("1".to_owned(), "xyz".to_owned())])), None);
    }
}
