//! Where a run begins, and the state of a rank there: its part of the weights, its optimizer's state.

use super::devices;
use super::gradient_reduction::GradientReduction;
use super::loss_scale::LossScaler;
use super::optimizer::OptimizerState;
use super::pipeline;
use super::resuming;
use super::step::{Settings, Trainer};
use super::training::{Error, Run, io_error};
use crate::checkpoint::manifest::{Kind, Progress};
use crate::checkpoint::native::Checkpoint;
use crate::checkpoint::{piecewise, whole};
use crate::data::sampler::Share;
use crate::layout::holding::Holding;
use crate::model::Model;
use crate::model::formats::Formats;
use crate::model::weights::Weights;
use crate::parallel::mesh::Mesh;
use crate::spec::backend::Backend;
use crate::spec::event::Sink;
use crate::spec::job::TrainJob;
use crate::spec::optimization::OptimizerName;
use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Where a run begins, in the words of node 0 to the others.
#[derive(Debug, Serialize, Deserialize)]
struct Told {
    folder: PathBuf,
    resumes: bool,
    is_own: bool,
}

/// Where a run begins.
#[derive(Debug)]
pub struct Begin {
    backend: Backend,
    checkpoint: Checkpoint,
    /// Whether a run goes on, with its optimizer's state.
    pub resumes: bool,
    /// Whether it is the run's own checkpoint that it goes on from.
    is_own: bool,
    /// Where training stands.
    pub progress: Progress,
}

impl Begin {
    /// [`find`](Begin::find) on node 0, whose word the others take.
    pub fn open(run: &Run<'_>, sink: &dyn Sink) -> Result<Begin, Error> {
        const SUBJECT: &str = "begin";
        let Some(nodes) = run.nodes else { return Begin::find(run, sink) };
        let unreadable = |error: serde_json::Error| Error::Tensor(candle_core::Error::wrap(error));
        if nodes.leads() {
            let begin = Begin::find(run, sink)?;
            let folder = std::path::absolute(begin.checkpoint.folder());
            let folder = folder.map_err(io_error(begin.checkpoint.folder()))?;
            let told = Told { folder, resumes: begin.resumes, is_own: begin.is_own };
            nodes.post_all(SUBJECT, serde_json::to_vec(&told).map_err(unreadable)?);
            return Ok(begin);
        }
        let told: Told = serde_json::from_slice(&nodes.fetch(0, SUBJECT)?).map_err(unreadable)?;
        let begin = if told.resumes {
            Begin::going_on(run.job, &told.folder)?
        } else {
            Begin::at(run.job, &told.folder)?
        };
        Ok(Begin { is_own: told.is_own, ..begin }.on(run.backend))
    }

    /// The start of `run`, or where an interrupted one left off.
    fn find(run: &Run<'_>, sink: &dyn Sink) -> Result<Begin, Error> {
        let begin = match resuming::newest(run.output, sink)? {
            Some(checkpoint) => {
                let batch = run.job.model.global_batch_size as u64;
                resuming::check_data(&checkpoint, &mut run.data.clone(), batch)?;
                Begin::after(run.job, checkpoint).map(|begin| Begin { is_own: true, ..begin })
            }
            None => match run.resume {
                Some(path) => {
                    let checkpoint = resuming::named(run.job, path, &mut run.data.clone())?;
                    Begin::after(run.job, checkpoint)
                }
                None => Begin::at(run.job, run.start),
            },
        };
        Ok(begin?.on(run.backend))
    }

    /// Where the run that wrote the checkpoint at `path` left off.
    pub fn going_on(job: &TrainJob, path: &Path) -> Result<Begin, Error> {
        Begin::after(job, Checkpoint::open(path)?)
    }

    fn after(job: &TrainJob, checkpoint: Checkpoint) -> Result<Begin, Error> {
        let progress = checkpoint.manifest().header.progress;
        Ok(Begin { resumes: true, progress, ..Begin::from(job, checkpoint)? })
    }

    /// The start of a run from the weights of the checkpoint at `path`.
    pub fn at(job: &TrainJob, path: &Path) -> Result<Begin, Error> {
        Begin::from(job, Checkpoint::open(path)?)
    }

    fn from(job: &TrainJob, checkpoint: Checkpoint) -> Result<Begin, Error> {
        let found = &checkpoint.manifest().header.architecture;
        whole::check_shape(checkpoint.folder(), found, &job.model.architecture)?;
        let (backend, progress) = (Backend::Cpu, Progress::default());
        Ok(Begin { backend, checkpoint, resumes: false, is_own: false, progress })
    }

    /// The same with ranks that compute on `backend`; they compute on the CPU otherwise.
    #[must_use]
    pub fn on(self, backend: Backend) -> Begin {
        Begin { backend, ..self }
    }

    /// The checkpoint of its own that an interrupted run goes on from, if one does.
    pub fn resumed(&self) -> Option<&Checkpoint> {
        Some(&self.checkpoint).filter(|_| self.is_own)
    }

    /// The state of the rank of `mesh`.
    pub fn trainer(&self, job: &TrainJob, mesh: &Mesh) -> Result<Trainer, Error> {
        let (architecture, optim) = (&job.model.architecture, &job.model.optim);
        let holding = Holding::of(architecture, &mesh.degrees, mesh.at).freezing(&job.model.frozen);
        let all = std::iter::once(0..holding.length()).collect::<Vec<_>>();
        let start = piecewise::read(&self.checkpoint, Kind::Weight, &holding, &all)?;
        let start = Tensor::from_vec(start, holding.length(), &Device::Cpu)?;
        let formats = Formats::of(job.trainer.precision, job.model.megatron_amp_o2);
        let device = devices::of_rank(self.backend, mesh.device)?;
        connect(mesh, holding.is_tied(), &device)?;
        let weights = Weights::held(holding, &start, formats, &device)?;
        let model =
            Model::of_rank(architecture, weights, mesh)?.with_recompute(job.model.recompute);
        let weights = model.weights();
        let distributed = optim.name == OptimizerName::DistributedFusedAdam;
        let reduction = GradientReduction::new(mesh, weights, distributed);
        let owned = reduction.owned();
        let mut state = OptimizerState::of_elements(optim, weights, &owned, &start)?;
        if self.resumes {
            let (holding, learned) = (weights.holding(), state.learned().to_vec());
            let moment = |kind| piecewise::read(&self.checkpoint, kind, holding, &learned);
            state =
                state.with_moments([moment(Kind::FirstMoment)?, moment(Kind::SecondMoment)?])?;
        }
        let tokens = job.model.global_batch_size * job.model.encoder_seq_length;
        let training = self.checkpoint.manifest().header.training.as_ref();
        let loss_scale = training.filter(|_| self.resumes).and_then(|found| found.loss_scale);
        let scaler = |settings| LossScaler::new(settings, tokens, loss_scale);
        let settings = Settings {
            loss_scaler: job.model.loss_scaling.map(scaler),
            optimizer: optim.clone(),
            gradient_clip_val: job.trainer.gradient_clip_val,
            seed: job.model.seed,
        };
        Ok(Trainer::of_rank(mesh, model, (state, reduction), settings))
    }
}

/// Makes ready what the rank's groups need in training.
fn connect(mesh: &Mesh, is_tied: bool, device: &Device) -> Result<(), Error> {
    let ends = mesh.embedding.as_ref().filter(|_| is_tied);
    [&mesh.tensor, &mesh.data].into_iter().chain(ends).try_for_each(|group| group.open(device))?;
    Ok(mesh.pipeline.connect(device, &pipeline::routes(&mesh.degrees))?)
}

/// How the job's global batch is cut for the replica of `mesh`.
pub fn share(job: &TrainJob, mesh: &Mesh) -> Result<Share, Error> {
    let model = &job.model;
    let (replicas, replica) = (mesh.degrees.data, mesh.at.data);
    Ok(Share::new(model.global_batch_size, model.micro_batch_size, replicas, replica)?)
}
