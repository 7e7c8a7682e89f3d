//! The load stage: a checkpoint of any program, or fresh weights, as a native checkpoint.

use super::{Folders, Outcome, Refusal};
use crate::base::error_chain::with_causes;
use crate::checkpoint::completed::Completed;
use crate::checkpoint::foreign::nemo::Wanted;
use crate::checkpoint::manifest::{Header, Progress};
use crate::checkpoint::opened::Opened;
use crate::checkpoint::reshard::reshard;
use crate::checkpoint::{native, whole};
use crate::model::weights::start_values;
use crate::spec::architecture::Architecture;
use crate::spec::event::{Event, Sink};
use crate::spec::job::LoadJob;
use crate::spec::optimization::Degrees;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;

/// Why load failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] native::Error),
}

/// Writes `checkpoint/` into the output folder.
pub fn run(
    job: &LoadJob,
    folders: &Folders,
    sink: &dyn Sink,
    _stop: &AtomicBool,
) -> Result<Outcome, super::Error> {
    let count = if job.model.restore {
        restore(job, folders.input("checkpoint")?, &folders.output.join("checkpoint"), sink)?
    } else {
        let values = start_values(&job.model.architecture, job.model.seed);
        let count = values.len();
        write(job, folders, values)?;
        count
    };
    Ok(Outcome { facts: BTreeMap::from([("parameters".to_owned(), count as f64)]) })
}

/// Streams the weights of the checkpoint at `path` into `target`; returns how many there are.
fn restore(job: &LoadJob, path: &Path, target: &Path, sink: &dyn Sink) -> Result<usize, Error> {
    let wanted = &job.model.architecture;
    let opened = open(job, path)?;
    if job.model.megatron_legacy && !opened.legacy_order {
        let text = "`model.megatron_legacy` has no effect: the checkpoint says itself in which order \
                    its queries, keys and values are";
        sink.emit(Event::Note { text: text.to_owned() });
    }
    let weights = Completed::new(opened.source(), wanted, job.model.seed);
    let fresh: Vec<&str> = weights.fresh().collect();
    if !fresh.is_empty() {
        let text = format!("not in the checkpoint, started fresh: {}", fresh.join(", "));
        sink.emit(Event::Note { text });
    }
    if let Some(unused) = opened.foreign().map(|reader| &reader.loose().unused)
        && !unused.is_empty()
    {
        sink.emit(Event::Note { text: format!("left out, no place for: {}", unused.join(", ")) });
    }
    let header = Header {
        architecture: wanted.clone(),
        progress: Progress::default(),
        layout: Degrees::SINGLE,
        training: None,
    };
    let mut progress = |done, total| sink.emit(progress("loading", done, total));
    reshard(&weights, target, header, &mut progress)?;
    Ok(crate::layout::parameters::element_count(wanted))
}

/// Opens the checkpoint at `path` and holds it against the recipe; tensors are not read.
fn open(job: &LoadJob, path: &Path) -> Result<Opened, Error> {
    let wanted = &job.model.architecture;
    let legacy_order = job.model.megatron_legacy;
    let opened = Opened::open(path, Some(Wanted { architecture: wanted, legacy_order }))?;
    let found = opened.architecture();
    // A file of another program counts its padding rows as ids.
    let padded = opened.foreign().is_some() && found.vocab_size >= wanted.vocab_size;
    let vocab_size = if padded { wanted.vocab_size } else { found.vocab_size };
    let found = Architecture { vocab_size, ..found.clone() };
    whole::check_shape(opened.source().path(), &found, wanted)?;
    if job.stage.strict { Ok(opened.whole()?) } else { Ok(opened) }
}

/// Why the checkpoint at `path` cannot be loaded as `job` says, if it cannot.
pub(super) fn refusal(job: &LoadJob, path: &Path) -> Option<Refusal> {
    let what = with_causes(&open(job, path).err()?);
    let help = "give a checkpoint of this model: of sft-run, Hugging Face, NeMo, Megatron-LM or \
                GGUF (`sft-run inspect PATH` shows what a path holds), or make the recipe's model \
                section that of the checkpoint; `strict: false` on the load stage starts fresh what \
                is missing";
    Some(Refusal { what, key: "restore_from_path".to_owned(), help: help.to_owned() })
}

/// Progress in bytes.
pub(super) fn progress(task: &str, done: u64, total: u64) -> Event {
    Event::Progress { task: task.to_owned(), done, total, unit: "bytes".to_owned() }
}

fn write(job: &LoadJob, folders: &Folders, values: Vec<f32>) -> Result<(), Error> {
    let model = whole::build(&job.model.architecture, values)?;
    whole::save(&folders.output.join("checkpoint"), &model, Progress::default(), None)?;
    Ok(())
}
