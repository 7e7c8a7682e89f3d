//! Runs this rank's part of a pipeline: the operations of its stage, one after the other.
//!
//! One stage is a pipeline too, whose schedule takes each micro-batch forward and backward at once.

use super::step::{targets, view};
use crate::data::microbatch::MicroBatch;
use crate::kernels::cross_entropy::Score;
use crate::layout::schedule::{Message, Operation, Payload, Pipeline, Task};
use crate::model::Model;
use crate::model::batch::{Noise, Pass, Targets};
use crate::model::chunk::{Chunk, Output, Saved};
use crate::model::trunk::{Milestone, Reached};
use crate::parallel::group::{Like, Route};
use crate::parallel::mesh::Mesh;
use crate::spec::optimization::Degrees;
use candle_core::{Result, Tensor, bail};
use std::collections::BTreeMap;

/// A rank's part of the model, and where the rank stands.
#[derive(Clone, Copy, Debug)]
pub struct Stage<'a> {
    /// What it holds of the model.
    pub model: &'a Model,
    /// The ranks around it.
    pub mesh: &'a Mesh,
}

/// How micro-batches are learned.
#[derive(Clone, Copy, Debug)]
pub struct Learning {
    /// Where dropout comes from.
    pub noise: Noise,
    /// Gradients are those of the loss sum times this.
    pub gradient_scale: f64,
}

impl Stage<'_> {
    /// Adds the gradients of all `batches`, which every stage of the pipeline is given alike; tells
    /// `reached` where backward passes have come to; of gradients only when the last micro-batch's are
    /// added.
    ///
    /// Gives the sum of the loss over their targets in nats on the last stage, 0 on the others.
    pub fn learn(
        &self,
        batches: &[MicroBatch],
        learning: Learning,
        reached: &mut Reached<'_>,
    ) -> Result<f64> {
        let works = Work::of(batches);
        let mut run = Run::new(*self, &works, Some(learning));
        for operation in self.pipeline(works.len()).operations(self.mesh.at.pipeline) {
            run.act(operation, reached)?;
        }
        Ok(run.loss)
    }

    /// How well the targets of `batches`, which every stage is given alike, are predicted; nothing
    /// is dropped. Given on the last stage, in their order; the others give nothing.
    pub fn scores(&self, batches: &[MicroBatch]) -> Result<Vec<Score>> {
        let works = Work::of(batches);
        let mut run = Run::new(*self, &works, None);
        for operation in self.pipeline(works.len()).forwards(self.mesh.at.pipeline) {
            run.act(operation, &mut |_| Ok(()))?;
        }
        Ok(run.scores)
    }

    fn pipeline(&self, micro_batches: usize) -> Pipeline {
        let degrees = &self.mesh.degrees;
        Pipeline { stages: degrees.pipeline, chunks: degrees.virtual_pipeline, micro_batches }
    }
}

/// A micro-batch with its targets.
#[derive(Debug)]
struct Work<'a> {
    batch: &'a MicroBatch,
    places: Vec<u32>,
    labels: Vec<u32>,
}

impl Work<'_> {
    /// The micro-batches that have a target: without one the loss sum is empty, and so is its gradient.
    fn of(batches: &[MicroBatch]) -> Vec<Work<'_>> {
        let work = |batch| {
            let (places, labels) = targets(batch);
            Work { batch, places, labels }
        };
        batches.iter().map(work).filter(|work| !work.places.is_empty()).collect()
    }
}

/// A stage at work.
struct Run<'a> {
    stage: Stage<'a>,
    works: &'a [Work<'a>],
    /// None where nothing is learned, only scored.
    learning: Option<Learning>,
    /// What was received last, or computed last and not sent yet.
    in_hand: Option<Tensor>,
    /// What forward passes keep for their backward.
    saved: BTreeMap<Task, Saved>,
    loss: f64,
    scores: Vec<Score>,
}

impl<'a> Run<'a> {
    fn new(stage: Stage<'a>, works: &'a [Work<'a>], learning: Option<Learning>) -> Run<'a> {
        let (saved, scores) = (BTreeMap::new(), Vec::new());
        Run { stage, works, learning, in_hand: None, saved, loss: 0.0, scores }
    }

    fn act(&mut self, operation: Operation, reached: &mut Reached<'_>) -> Result<()> {
        match operation {
            Operation::Forward(task) => self.forward(task),
            Operation::Backward(task) => self.backward(task, reached),
            Operation::Send(message) => self.send(message),
            Operation::Receive(message) => self.receive(message),
        }
    }

    fn forward(&mut self, task: Task) -> Result<()> {
        let (chunk, work) = (self.chunk(task)?, &self.works[task.micro_batch]);
        let (pass, x) = (self.pass(task), self.in_hand.take());
        let Some(learning) = self.learning else {
            let targets = Targets::new(&work.places, &work.labels);
            let stream = chunk.stream(x, &pass)?;
            if chunk.is_last() {
                self.scores.extend(chunk.scores(&stream, &pass, &targets)?);
            } else {
                self.in_hand = Some(stream);
            }
            return Ok(());
        };
        let Learning { gradient_scale, .. } = learning;
        let targets = Targets { places: &work.places, labels: &work.labels, gradient_scale };
        let (output, saved) = chunk.forward(x, &pass, &targets)?;
        self.saved.insert(task, saved);
        match output {
            Output::Stream(stream) => self.in_hand = Some(stream),
            Output::Loss(loss) => self.loss += loss,
        }
        Ok(())
    }

    fn backward(&mut self, task: Task, reached: &mut Reached<'_>) -> Result<()> {
        let (chunk, pass) = (self.chunk(task)?, self.pass(task));
        let Some(saved) = self.saved.remove(&task) else {
            bail!("the backward of {task:?} comes before its forward")
        };
        let is_last = task.micro_batch + 1 == self.works.len();
        // Attention of any backward is a good moment for the sums of a chunk that is complete.
        let mut tell = |milestone| {
            if is_last || milestone == Milestone::Attention { reached(milestone) } else { Ok(()) }
        };
        self.in_hand = chunk.backward(saved, &pass, self.in_hand.take(), &mut tell)?;
        Ok(())
    }

    fn send(&mut self, message: Message) -> Result<()> {
        let Some(tensor) = self.in_hand.take() else {
            bail!("there is nothing to send for {message:?}")
        };
        self.stage.mesh.pipeline.send(&tensor, message.peer, tag(message.payload))
    }

    fn receive(&mut self, message: Message) -> Result<()> {
        let Stage { model, mesh } = self.stage;
        let tokens = self.works[message.task.micro_batch].batch.len();
        let weights = model.weights();
        let like = Like {
            shape: model.stream_shape(tokens).into(),
            dtype: weights.formats().parameters,
            device: weights.device().clone(),
        };
        self.in_hand = Some(mesh.pipeline.receive(&like, message.peer, tag(message.payload))?);
        Ok(())
    }

    fn chunk(&self, task: Task) -> Result<&'a Chunk> {
        match self.stage.model.chunks().get(task.chunk) {
            Some(chunk) => Ok(chunk),
            None => bail!("this stage has no chunk {}", task.chunk),
        }
    }

    fn pass(&self, task: Task) -> Pass<'a> {
        let batch = view(self.works[task.micro_batch].batch);
        self.stage.model.pass(&batch, self.learning.map(|learning| learning.noise))
    }
}

/// The routes of a pipeline's messages in training, with those of its chunks from the last stage to
/// the first.
pub fn routes(degrees: &Degrees) -> Vec<Route> {
    let closed = degrees.virtual_pipeline > 1;
    let there = Route::chain(degrees.pipeline, closed, tag(Payload::Activation));
    let back = there.iter().map(|route| route.back(tag(Payload::Gradient))).collect::<Vec<_>>();
    [there, back].concat()
}

/// Activations and gradients go in queues of their own.
fn tag(payload: Payload) -> u64 {
    match payload {
        Payload::Activation => 0,
        Payload::Gradient => 1,
    }
}
