//! Metrics of generated answers between training steps.

use super::Folders;
use super::evaluation::{self, Around, Evaluation, Measured, lines};
use crate::base::atomic_file;
use crate::data::tokenizer::Tokenizer;
use crate::engine::generation::Session;
use crate::engine::replica::Member;
use crate::engine::watch::Watch;
use crate::layout::mesh::{Coordinates, rank};
use crate::model::Model;
use crate::parallel::mesh::Mesh;
use crate::parallel::nodes::Nodes;
use crate::spec::event::{Event, Sample, Sink, VALIDATION_METRIC};
use crate::spec::job::TrainJob;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Folder of the validations' samples in the output of a train stage: a file for each step.
pub(super) const SAMPLES_FOLDER: &str = "validation_samples";
/// Samples of one validation that are kept.
const KEPT_SAMPLES: usize = 20;

/// Measures the model that is being trained on samples of the validation split.
pub(super) struct Watcher<'a> {
    evaluation: Evaluation,
    tokenizer: Tokenizer,
    folder: PathBuf,
    sink: &'a dyn Sink,
    stop: &'a AtomicBool,
    /// What each replica measured of its share, until all of them have.
    shares: Mutex<BTreeMap<usize, Measured>>,
}

impl fmt::Debug for Watcher<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Watcher").field("evaluation", &self.evaluation).finish()
    }
}

impl<'a> Watcher<'a> {
    /// Prepares what the job wants measured; none when that is nothing.
    pub(super) fn prepare(
        job: &TrainJob,
        folders: &Folders,
        sink: &'a dyn Sink,
        stop: &'a AtomicBool,
    ) -> Result<Option<Watcher<'a>>, super::Error> {
        let Some(settings) = &job.stage.validate else { return Ok(None) };
        let data = folders.input("validate.data")?;
        let prepared = || -> Result<(Evaluation, Tokenizer), evaluation::Error> {
            let evaluation = Evaluation::prepare(settings, data, folders, "validate.metrics")?;
            Ok((evaluation, Tokenizer::open(&data.join("tokenizer"))?))
        };
        let (evaluation, tokenizer) = prepared().map_err(super::train::Error::from)?;
        let folder = folders.output.join(SAMPLES_FOLDER);
        let shares = Mutex::default();
        Ok(Some(Watcher { evaluation, tokenizer, folder, sink, stop, shares }))
    }

    fn shares(&self) -> MutexGuard<'_, BTreeMap<usize, Measured>> {
        self.shares.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends what this node's replica `mesh.at.data` measured to node 0.
    fn hand_over(&self, nodes: &Nodes, mesh: &Mesh) -> serde_json::Result<()> {
        let measured = self.shares().remove(&mesh.at.data);
        nodes.post(0, &subject(mesh.at.data), serde_json::to_vec(&measured)?);
        Ok(())
    }

    /// Takes what the replicas of other nodes measured.
    fn take_over(
        &self,
        nodes: &Nodes,
        mesh: &Mesh,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        for data in 0..mesh.degrees.data {
            let leader = rank(&mesh.degrees, Coordinates { data, pipeline: 0, tensor: 0 });
            let node = nodes.place().node_of(leader);
            if node == 0 {
                continue;
            }
            let told = nodes.fetch(node, &subject(data))?;
            if let Some(measured) = serde_json::from_slice::<Option<Measured>>(&told)? {
                self.shares().insert(data, measured);
            }
        }
        Ok(())
    }

    fn keep(&self, step: u64, samples: &[Sample]) -> std::io::Result<()> {
        let path = self.folder.join(format!("step-{step:08}.jsonl"));
        atomic_file::write(&path, lines(&samples[..samples.len().min(KEPT_SAMPLES)]).as_bytes())
    }
}

/// Under which a replica's measurements travel between nodes.
fn subject(replica: usize) -> String {
    format!("measured by replica {replica}")
}

/// Events of generation but its bars: training has one of its own.
struct Calm<'a>(&'a dyn Sink);

impl Sink for Calm<'_> {
    fn emit(&self, event: Event) {
        if !matches!(event, Event::Progress { .. }) {
            self.0.emit(event);
        }
    }
}

impl Watch for Watcher<'_> {
    fn measure(
        &self,
        model: &Model,
        mesh: &Mesh,
        step: u64,
    ) -> Result<BTreeMap<String, f64>, Box<dyn std::error::Error + Send + Sync>> {
        let (calm, nodes) = (Calm(self.sink), mesh.nodes.as_deref());
        let around = Around { sink: &calm, stop: self.stop, nodes };
        let member = Member::of(model, mesh)?;
        let measured = member.lead(|replica| {
            self.evaluation.measure(Session::new(replica, &self.tokenizer)?, around)
        });
        match measured {
            Ok(Some(measured)) => {
                self.shares().insert(mesh.at.data, measured);
            }
            Ok(None) => return Ok(BTreeMap::new()),
            Err(evaluation::Error::Stopped(_)) => {}
            Err(error) => return Err(error.into()),
        }
        if let Some(nodes) = mesh.nodes.as_ref().filter(|nodes| !nodes.leads()) {
            self.hand_over(nodes, mesh)?;
        }
        // The leaders of all replicas are one data group.
        mesh.data.barrier()?;
        if mesh.rank > 0 {
            return Ok(BTreeMap::new());
        }
        if let Some(nodes) = &mesh.nodes {
            self.take_over(nodes, mesh)?;
        }
        let shares = std::mem::take(&mut *self.shares());
        if shares.len() < mesh.degrees.data {
            return Ok(BTreeMap::new());
        }
        let evaluated = self.evaluation.score(shares.into_values().collect(), around);
        self.keep(step, &evaluated.samples)?;
        if let Some(failure) = evaluated.results.failures.into_iter().next() {
            return Err(failure.into());
        }
        let named = evaluated.results.values.into_iter();
        Ok(named.map(|(name, value)| (format!("{VALIDATION_METRIC}{name}"), value)).collect())
    }
}
