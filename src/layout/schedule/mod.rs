//! Pipeline schedules as data: what each stage computes, sends and receives, in order.
//!
//! One chunk per stage gives 1F1B (Narayanan et al. 2019, "`PipeDream`"; the synchronous form of
//! Megatron-LM), several give its interleaved form (Narayanan et al. 2021, "Efficient Large-Scale
//! Language Model Training on GPU Clusters", section 2.2). Chunk `c` of stage `s` is the model's
//! part `c × stages + s`; parts hand activations to the next part and gradients to the one before.
//!
//! # What a send and a receive mean
//! From each stage to each other one there are two queues, one for activations and one for
//! gradients, first in, first out. A send puts a message into its queue and goes on, a receive waits
//! for the next message. A send may have to wait while [`QUEUE`] messages lie unread:
//! [`play`](play::play) shows that no schedule needs more. (On one queue without any place, such as
//! a rendezvous, 1F1B stops for ever: neighbours send to each other at the same time.)

pub mod draw;
pub mod play;

use serde::Serialize;

/// Unread messages that a queue must be able to hold.
pub const QUEUE: usize = 1;

/// The operations of every stage for one step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Schedule {
    /// Micro-batches of the step.
    pub micro_batches: usize,
    /// Model chunks of each stage.
    pub chunks: usize,
    /// For each stage what it does, in order.
    pub stages: Vec<Vec<Operation>>,
}

/// One thing that a stage does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "operation", rename_all = "snake_case")]
pub enum Operation {
    /// The forward pass of a micro-batch through a chunk.
    Forward(Task),
    /// Its backward pass.
    Backward(Task),
    /// Hands something to another stage.
    Send(Message),
    /// Waits for something from another stage.
    Receive(Message),
}

/// A micro-batch in a model chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Task {
    /// Number of the micro-batch in the step.
    pub micro_batch: usize,
    /// The chunk, counted on its stage.
    pub chunk: usize,
}

/// Something handed from stage to stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Message {
    /// What it is.
    pub payload: Payload,
    /// The micro-batch and the chunk that reads it.
    #[serde(flatten)]
    pub task: Task,
    /// The stage on the other side.
    pub peer: usize,
}

/// What is handed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Payload {
    /// The output of a chunk: the next one's input.
    Activation,
    /// The gradient of a chunk's input.
    Gradient,
}

/// The schedule of `stages` stages with `chunks` chunks each, all at least 1.
///
/// A pipeline of one stage has one chunk: each micro-batch goes forward and backward at once.
pub fn schedule(stages: usize, chunks: usize, micro_batches: usize) -> Schedule {
    let pipeline = Pipeline { stages, chunks, micro_batches };
    let stages = (0..stages).map(|stage| pipeline.operations(stage)).collect();
    Schedule { micro_batches, chunks, stages }
}

/// Forward passes of chunks whose backward has not begun, at their most, on `stage`.
///
/// 1F1B: one for each stage from here to the last. Interleaved, `stages × (chunks - 1)` more, and
/// two for each later stage (Korthikanti et al. 2022, equation 5, for the first stage); fewer when a
/// step has not that many micro-batches.
pub fn peak_live(stages: usize, chunks: usize, micro_batches: usize, stage: usize) -> usize {
    let pipeline = Pipeline { stages, chunks, micro_batches };
    let (mut now, mut most) = (0_usize, 0);
    for step in pipeline.order(stage) {
        match step {
            Step::Forward(_) => now += 1,
            Step::Backward(_) => now -= 1,
        }
        most = most.max(now);
    }
    most
}

/// A computation.
#[derive(Clone, Copy, Debug)]
enum Step {
    Forward(Task),
    Backward(Task),
}

impl Step {
    fn task(self) -> Task {
        match self {
            Step::Forward(task) | Step::Backward(task) => task,
        }
    }
}

/// What a schedule depends on; every number is at least 1, but there may be no micro-batch.
#[derive(Clone, Copy, Debug)]
pub struct Pipeline {
    /// Stages.
    pub stages: usize,
    /// Model chunks of each; 1 where there is one stage.
    pub chunks: usize,
    /// Micro-batches of a step.
    pub micro_batches: usize,
}

impl Pipeline {
    /// Forward passes alone on `stage`, as an evaluation needs them.
    pub fn forwards(&self, stage: usize) -> Vec<Operation> {
        let mut operations = Vec::new();
        let tasks = self.tasks(false).into_iter();
        for task in tasks.filter(|task| task.micro_batch < self.micro_batches) {
            self.forward(stage, task, &mut operations);
        }
        operations
    }

    /// Forward and backward passes on `stage`.
    pub fn operations(&self, stage: usize) -> Vec<Operation> {
        let mut operations = Vec::new();
        for step in self.order(stage) {
            match step {
                Step::Forward(task) => self.forward(stage, task, &mut operations),
                Step::Backward(task) => self.backward(stage, task, &mut operations),
            }
        }
        operations
    }

    /// The computations of `stage`: some forward passes, then one forward and one backward in turn,
    /// then the backward passes that are left.
    fn order(&self, stage: usize) -> Vec<Step> {
        let (forwards, backwards) = (self.tasks(false), self.tasks(true));
        let (first, rest) = forwards.split_at(self.warmup(stage).min(forwards.len()));
        let mut order: Vec<_> = first.iter().copied().map(Step::Forward).collect();
        for (at, task) in backwards.into_iter().enumerate() {
            order.extend(rest.get(at).copied().map(Step::Forward));
            order.push(Step::Backward(task));
        }
        order.retain(|step| step.task().micro_batch < self.micro_batches);
        order
    }

    /// Forward passes before the first backward's own: the way to the last stage and back.
    fn warmup(&self, stage: usize) -> usize {
        let later = self.stages - 1 - stage;
        match self.chunks {
            1 => later,
            chunks => 2 * later + (chunks - 1) * self.stages,
        }
    }

    /// All tasks in the order in which every stage takes them: `stages` micro-batches through the
    /// first chunk, the same through the second, and so on; from the last chunk on when `backward`.
    ///
    /// The last group is filled up with micro-batches that are not there: an order that is right
    /// with them is right without them, while a smaller last group would make stages wait in a
    /// circle.
    fn tasks(&self, backward: bool) -> Vec<Task> {
        let mut tasks = Vec::with_capacity(self.micro_batches * self.chunks);
        for first in (0..self.micro_batches).step_by(self.stages) {
            for chunk in 0..self.chunks {
                let chunk = if backward { self.chunks - 1 - chunk } else { chunk };
                let group = first..first + self.stages;
                tasks.extend(group.map(|micro_batch| Task { micro_batch, chunk }));
            }
        }
        tasks
    }

    fn forward(&self, stage: usize, task: Task, operations: &mut Vec<Operation>) {
        let part = task.chunk * self.stages + stage;
        if part > 0 {
            operations.push(Operation::Receive(self.message(Payload::Activation, task, part - 1)));
        }
        operations.push(Operation::Forward(task));
        if part + 1 < self.parts() {
            let chunk = (part + 1) / self.stages;
            let read = Task { chunk, ..task };
            operations.push(Operation::Send(self.message(Payload::Activation, read, part + 1)));
        }
    }

    fn backward(&self, stage: usize, task: Task, operations: &mut Vec<Operation>) {
        let part = task.chunk * self.stages + stage;
        if part + 1 < self.parts() {
            operations.push(Operation::Receive(self.message(Payload::Gradient, task, part + 1)));
        }
        operations.push(Operation::Backward(task));
        if part > 0 {
            let chunk = (part - 1) / self.stages;
            let read = Task { chunk, ..task };
            operations.push(Operation::Send(self.message(Payload::Gradient, read, part - 1)));
        }
    }

    fn message(&self, payload: Payload, task: Task, other_part: usize) -> Message {
        Message { payload, task, peer: other_part % self.stages }
    }

    fn parts(&self) -> usize {
        self.stages * self.chunks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stage's computations as text: `0` forward, `0'` backward, the chunk as a letter.
    fn order(stages: usize, chunks: usize, micro_batches: usize, stage: usize) -> String {
        let mut words = Vec::new();
        for operation in &schedule(stages, chunks, micro_batches).stages[stage] {
            let name = |task: &Task| {
                let letter = if chunks > 1 { ["a", "b", "c"][task.chunk] } else { "" };
                format!("{}{letter}", task.micro_batch)
            };
            match operation {
                Operation::Forward(task) => words.push(name(task)),
                Operation::Backward(task) => words.push(format!("{}'", name(task))),
                Operation::Send(_) | Operation::Receive(_) => {}
            }
        }
        words.join(" ")
    }

    #[test]
    fn one_forward_one_backward() {
        assert_eq!(order(4, 1, 5, 0), "0 1 2 3 0' 4 1' 2' 3' 4'");
        assert_eq!(order(4, 1, 5, 2), "0 1 0' 2 1' 3 2' 4 3' 4'");
        assert_eq!(order(4, 1, 5, 3), "0 0' 1 1' 2 2' 3 3' 4 4'");
        assert_eq!(order(4, 1, 2, 0), "0 1 0' 1'");
        assert_eq!(order(1, 1, 3, 0), "0 0' 1 1' 2 2'");
    }

    #[test]
    fn interleaved_as_in_megatron() {
        // Figure 4 of Narayanan et al. 2021 has this order for stages 4, chunks 2; here 2 and 2.
        assert_eq!(order(2, 2, 4, 0), "0a 1a 0b 1b 2a 0b' 3a 1b' 2b 0a' 3b 1a' 2b' 3b' 2a' 3a'");
        assert_eq!(order(2, 2, 4, 1), "0a 1a 0b 0b' 1b 1b' 2a 0a' 3a 1a' 2b 2b' 3b 3b' 2a' 3a'");
    }

    #[test]
    fn messages_name_the_reader_and_the_other_side() {
        let schedule = schedule(2, 2, 1);
        let read =
            |payload, chunk, peer| Message { payload, task: Task { micro_batch: 0, chunk }, peer };
        let (activation, gradient) = (Payload::Activation, Payload::Gradient);
        let found: Vec<_> = schedule.stages[1]
            .iter()
            .filter(|op| matches!(op, Operation::Send(_) | Operation::Receive(_)))
            .collect();
        let expected = [
            Operation::Receive(read(activation, 0, 0)),
            Operation::Send(read(activation, 1, 0)),
            Operation::Receive(read(activation, 1, 0)),
            Operation::Send(read(gradient, 1, 0)),
            Operation::Receive(read(gradient, 0, 0)),
            Operation::Send(read(gradient, 0, 0)),
        ];
        assert_eq!(found, expected.iter().collect::<Vec<_>>());
    }
}
