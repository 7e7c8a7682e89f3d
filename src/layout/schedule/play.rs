//! Plays the stages of a schedule against each other: who waits how long, and whether anybody waits
//! for ever.

use super::{Message, Operation, Payload, Schedule, Task};
use std::collections::BTreeMap;

/// Units of time that computations take; messages take none.
#[derive(Clone, Copy, Debug)]
pub struct Costs {
    /// The forward pass of a micro-batch through a chunk.
    pub forward: usize,
    /// Its backward pass.
    pub backward: usize,
}

/// The usual costs: a backward pass takes as long as two forward passes.
pub const USUAL: Costs = Costs { forward: 1, backward: 2 };

/// How a play went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Play {
    /// The computations of each stage, in order.
    pub stages: Vec<Vec<Span>>,
    /// When the last stage was done.
    pub end: usize,
}

/// A computation with its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// What was computed.
    pub task: Task,
    /// Whether it is a backward pass.
    pub backward: bool,
    /// First unit of time.
    pub start: usize,
    /// One past the last.
    pub end: usize,
}

impl Play {
    /// Share of the stages' time in which they wait.
    pub fn bubble(&self) -> f64 {
        let spans = self.stages.iter().flatten();
        let busy: usize = spans.map(|span| span.end - span.start).sum();
        let all = self.end * self.stages.len();
        if all == 0 { 0.0 } else { 1.0 - busy as f64 / all as f64 }
    }
}

/// The stages wait for each other in a circle, or a message is not the one that was waited for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("stage {stage} waits for ever at its operation {operation}")]
pub struct Stuck {
    /// The first stage that is not done.
    pub stage: usize,
    /// Number of its operation, from 0.
    pub operation: usize,
}

/// Plays `schedule` on queues that hold `places` unread messages each.
///
/// A message that is not the one its receiver waits for counts as none: the order of each queue
/// must be that of both its ends.
pub fn play(schedule: &Schedule, costs: Costs, places: usize) -> Result<Play, Stuck> {
    let count = schedule.stages.len();
    let mut players = vec![Player::default(); count];
    let mut queues: BTreeMap<(usize, usize, Payload), Queue> = BTreeMap::new();
    loop {
        let mut moved = false;
        for (stage, player) in players.iter_mut().enumerate() {
            while let Some(operation) = schedule.stages[stage].get(player.next) {
                if !player.act(stage, operation, costs, (&mut queues, places)) {
                    break;
                }
                moved = true;
            }
        }
        if !moved {
            break;
        }
    }
    let done = |stage: &usize| players[*stage].next == schedule.stages[*stage].len();
    if let Some(stage) = (0..count).find(|stage| !done(stage)) {
        return Err(Stuck { stage, operation: players[stage].next });
    }
    let end = players.iter().map(|player| player.clock).max().unwrap_or_default();
    Ok(Play { stages: players.into_iter().map(|player| player.spans).collect(), end })
}

/// Messages from one stage to another.
#[derive(Clone, Debug, Default)]
struct Queue {
    /// Every message with the time at which it was put.
    sent: Vec<(Task, usize)>,
    /// When each of the first ones was read.
    read: Vec<usize>,
}

#[derive(Clone, Debug, Default)]
struct Player {
    next: usize,
    clock: usize,
    spans: Vec<Span>,
}

impl Player {
    /// Does the next operation if it can be done now.
    fn act(
        &mut self,
        stage: usize,
        operation: &Operation,
        costs: Costs,
        (queues, places): (&mut BTreeMap<(usize, usize, Payload), Queue>, usize),
    ) -> bool {
        let done = match operation {
            Operation::Forward(task) => self.compute(*task, false, costs.forward),
            Operation::Backward(task) => self.compute(*task, true, costs.backward),
            Operation::Send(message) => {
                let queue = queues.entry((stage, message.peer, message.payload)).or_default();
                self.send(message, queue, places)
            }
            Operation::Receive(message) => {
                let queue = queues.entry((message.peer, stage, message.payload)).or_default();
                self.receive(message, queue)
            }
        };
        self.next += usize::from(done);
        done
    }

    fn compute(&mut self, task: Task, backward: bool, cost: usize) -> bool {
        let start = self.clock;
        self.clock += cost;
        self.spans.push(Span { task, backward, start, end: self.clock });
        true
    }

    fn send(&mut self, message: &Message, queue: &mut Queue, places: usize) -> bool {
        // The place is free once the message that had it before has been read.
        if let Some(before) = queue.sent.len().checked_sub(places) {
            let Some(read) = queue.read.get(before) else { return false };
            self.clock = self.clock.max(*read);
        }
        queue.sent.push((message.task, self.clock));
        true
    }

    fn receive(&mut self, message: &Message, queue: &mut Queue) -> bool {
        let Some((task, sent)) = queue.sent.get(queue.read.len()) else { return false };
        if *task != message.task {
            return false;
        }
        self.clock = self.clock.max(*sent);
        queue.read.push(self.clock);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::schedule::{QUEUE, peak_live, schedule};
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// The most forward passes under way on a stage, by formula, for whole groups of micro-batches.
    fn formula(stages: usize, chunks: usize, micro_batches: usize, stage: usize) -> usize {
        let later = stages - 1 - stage;
        let live = if chunks == 1 { later + 1 } else { 2 * later + (chunks - 1) * stages + 1 };
        live.min(micro_batches * chunks)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

        #[test]
        fn every_stage_ends_in_the_right_order(
            stages in 1_usize..9,
            chunks in 1_usize..5,
            micro_batches in 1_usize..24,
            forward in 1_usize..4,
            backward in 1_usize..4,
        ) {
            let chunks = if stages == 1 { 1 } else { chunks };
            let schedule = schedule(stages, chunks, micro_batches);
            let costs = Costs { forward, backward };
            let play = play(&schedule, costs, QUEUE).map_err(|stuck| {
                TestCaseError::fail(format!("{stages} × {chunks}, {micro_batches}: {stuck}"))
            })?;
            let mut ends = BTreeMap::new();
            for (stage, spans) in play.stages.iter().enumerate() {
                // Every task once forward and once backward.
                let tasks: BTreeSet<_> =
                    spans.iter().map(|span| (span.backward, span.task)).collect();
                prop_assert_eq!(tasks.len(), spans.len());
                prop_assert_eq!(spans.len(), 2 * chunks * micro_batches);
                for span in spans {
                    let part = span.task.chunk * stages + stage;
                    ends.insert((span.backward, span.task.micro_batch, part), *span);
                }
                let live = peak_live(stages, chunks, micro_batches, stage);
                let formula = formula(stages, chunks, micro_batches, stage);
                prop_assert!(live <= formula);
                if chunks == 1 || micro_batches % stages == 0 {
                    prop_assert_eq!(live, formula);
                }
            }
            // A part comes after the part before it, its backward after the next one's.
            for ((backward, micro_batch, part), span) in &ends {
                let before = match (backward, *part + 1 == stages * chunks) {
                    (false, _) => part.checked_sub(1).map(|part| (false, *micro_batch, part)),
                    (true, true) => Some((false, *micro_batch, *part)),
                    (true, false) => Some((true, *micro_batch, part + 1)),
                };
                if let Some(before) = before {
                    prop_assert!(ends[&before].end <= span.start);
                }
            }
        }
    }

    #[test]
    fn a_circle_is_found() {
        let mut broken = schedule(2, 1, 2);
        // The first stage waits for a gradient before it has sent anything.
        broken.stages[0].rotate_left(4);
        assert!(play(&broken, USUAL, QUEUE).is_err());
        // Without any place in the queues, neighbours send to each other for ever.
        assert!(play(&schedule(4, 1, 8), USUAL, 0).is_err());
    }

    #[test]
    fn the_bubble_is_the_published_one() {
        // (p - 1) / (m + p - 1), and 1/v of the numerator when interleaved.
        let bubble = |stages, chunks, micro_batches| {
            play(&schedule(stages, chunks, micro_batches), USUAL, QUEUE).map(|play| play.bubble())
        };
        let close = |found: Result<f64, Stuck>, expected: f64| {
            assert!(
                (found.clone().unwrap_or(9.9) - expected).abs() < 1e-9,
                "{found:?}, {expected}"
            );
        };
        close(bubble(1, 1, 8), 0.0);
        close(bubble(4, 1, 8), 3.0 / 11.0);
        close(bubble(4, 2, 8), 1.5 / 9.5);
        close(bubble(8, 4, 32), (7.0 / 4.0) / (32.0 + 7.0 / 4.0));
    }
}
