//! The evaluate stage: metrics of a model on held-out samples, with the samples themselves.

use super::devices::Devices;
use super::evaluation::{self, Around, Evaluated, Evaluation, Measured, lines};
use super::nodes::Nodes;
use super::{Folders, Outcome, generate};
use crate::base::atomic_file;
use crate::data::tokenizer::Tokenizer;
use crate::engine::generation::Session;
use crate::engine::replica::Replica;
use crate::engine::team;
use crate::metrics;
use crate::spec::event::{Event, Sink};
use crate::spec::job::EvaluateJob;
use serde_json::json;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Samples that are sent as events, for people to see.
const SHOWN_SAMPLES: usize = 5;

/// Why evaluate failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The model.
    #[error(transparent)]
    Model(#[from] team::Error),
    /// The evaluation.
    #[error(transparent)]
    Evaluation(#[from] evaluation::Error),
    /// Some metrics have no value; the others and all samples are in the output folder.
    #[error("{}; the samples and {kept} other metrics are kept", told(failed))]
    Metrics {
        /// What is wrong with each.
        failed: Vec<metrics::Error>,
        /// How many are whole.
        kept: usize,
    },
    /// The output.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Writes `metrics.json` (a number by metric name), `intervals.json` (the ends of its 95% interval)
/// and `samples.jsonl` (a [`crate::spec::event::Sample`] a line, empty when no metric needs
/// generated text) into the output folder, also when some metrics fail. Of several nodes each calls
/// this, and node 0 scores and writes.
pub fn run(
    job: &EvaluateJob,
    folders: &Folders,
    (sink, stop): (&dyn Sink, &AtomicBool),
    nodes: Option<&Arc<Nodes>>,
) -> Result<Outcome, super::Error> {
    let of_choices = job.stage.choices.is_some();
    let data = folders.input(if of_choices { "choices" } else { "data" })?;
    let evaluation = Evaluation::prepare(&job.stage, data, folders, "metrics");
    let evaluation = evaluation.map_err(Error::from)?;
    let devices = Devices { trainer: job.trainer, backend: folders.backend };
    let team = super::team(folders.input("model")?, devices, nodes);
    let team = team.map_err(Error::from)?;
    let tokenizer = if of_choices {
        generate::tokenizer(job.model.tokenizer, folders)?
    } else {
        let opened = Tokenizer::open(&data.join("tokenizer"));
        opened.map_err(evaluation::Error::from).map_err(Error::from)?
    };
    let around = Around { sink, stop, nodes: nodes.map(Arc::as_ref) };
    // Who is stopped says so and fails nobody: all nodes come to the end of the stage.
    let measure = |replica: Replica<'_>| match evaluation
        .measure(Session::new(replica, &tokenizer)?, around)
    {
        Err(evaluation::Error::Stopped(place)) => Ok(Err(place)),
        measured => measured.map(Ok),
    };
    let Some(measured) = team.lead_all(measure).map_err(Error::Evaluation)? else {
        return Ok(Outcome::default());
    };
    let measured: Result<Vec<Measured>, String> = measured.into_iter().collect();
    let measured = measured.map_err(super::Error::Stopped)?;
    let Evaluated { results, samples } = evaluation.score(measured, around);
    for sample in samples.iter().take(SHOWN_SAMPLES) {
        sink.emit(Event::Sample(sample.clone()));
    }
    write(folders, "metrics.json", &format!("{:#}\n", json!(results.values)))?;
    write(folders, "intervals.json", &format!("{:#}\n", json!(results.intervals)))?;
    write(folders, "samples.jsonl", &lines(&samples))?;
    if !results.failures.is_empty() {
        return Err(Error::Metrics { failed: results.failures, kept: results.values.len() }.into());
    }
    let mut facts = results.values;
    facts.insert("samples".to_owned(), evaluation.len() as f64);
    Ok(Outcome { facts })
}

fn told(failed: &[metrics::Error]) -> String {
    let chain = |error: &metrics::Error| {
        let source = std::error::Error::source(error).map(|source| format!(": {source}"));
        format!("{error}{}", source.unwrap_or_default())
    };
    failed.iter().map(chain).collect::<Vec<_>>().join("; ")
}

fn write(folders: &Folders, name: &str, text: &str) -> Result<(), Error> {
    let path = folders.output.join(name);
    let written = atomic_file::write(&path, text.as_bytes());
    written.map_err(|source| Error::Write { path, source })
}
