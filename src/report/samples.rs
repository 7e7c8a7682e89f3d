//! `samples.jsonl` of a run folder: the samples of all its stages, each with its stage's name.

use crate::base::atomic_file;
use crate::spec::event::Sample;
use serde_json::Value;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The file's name in the run folder.
pub const FILE: &str = "samples.jsonl";

/// Writes `samples.jsonl` of `run_folder`: every line of each stage's file, in order, with the key
/// `stage` put before the others.
///
/// `stages` are pairs of a stage's name and its `samples.jsonl` or `generations.jsonl`, or of `NAME,
/// step N` and the samples of a validation.
pub fn gather(run_folder: &Path, stages: &[(String, PathBuf)]) -> io::Result<()> {
    let texts: Vec<_> =
        stages.iter().map(|(_, path)| fs::read_to_string(path)).collect::<io::Result<_>>()?;
    atomic_file::write_with(&run_folder.join(FILE), |file| {
        for ((stage, _), text) in stages.iter().zip(&texts) {
            for line in text.lines() {
                let rest = line.strip_prefix('{').ok_or_else(|| not_an_object(line))?;
                writeln!(file, "{{\"stage\":{},{rest}", Value::from(stage.as_str()))?;
            }
        }
        Ok(())
    })
}

fn not_an_object(line: &str) -> io::Error {
    let start: String = line.chars().take(40).collect();
    io::Error::new(io::ErrorKind::InvalidData, format!("not a JSON object: `{start}`"))
}

/// One line of the run folder's file: the stage's name and the sample.
pub fn parse(line: &str) -> Result<(String, Sample), serde_json::Error> {
    let mut value: Value = serde_json::from_str(line)?;
    let stage = value.as_object_mut().and_then(|object| object.remove("stage"));
    let stage = stage.map(serde_json::from_value).transpose()?.unwrap_or_default();
    Ok((stage, serde_json::from_value(value)?))
}
