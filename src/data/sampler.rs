//! Which sequence comes next: a pure function of seed and sample number, whatever the layout.
//!
//! The samples of a run are numbered from 0 as they are consumed. Number `n` of a part of `N`
//! sequences is position `n % N` of epoch `n / N`, and each epoch has its own permutation. So no
//! sequence is left out, nothing depends on the length of the run, and resuming at `n` is exact.
//! (NeMo's cyclic sampler shuffles a bucket per replica, so that its order depends on the number
//! of replicas, and drops the tail of an epoch.)

use crate::base::seed::Stream;
use std::ops::Range;

/// What makes an order or a cut impossible.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// A part has nothing in it.
    #[error("part {0} of the training data has no sequences")]
    Empty(usize),
    /// A weight is not a positive number.
    #[error("weight {1} of part {0} of the training data is not positive")]
    Weight(usize, String),
    /// The global batch cannot be cut evenly.
    #[error(
        "a global batch of {global} cannot be cut into micro-batches of {micro} on {replicas} replicas"
    )]
    Uneven {
        /// Sequences per step.
        global: usize,
        /// Sequences per micro-batch.
        micro: usize,
        /// Replicas.
        replicas: usize,
    },
}

/// The order of the samples of a run over one or several weighted parts.
#[derive(Clone, Debug)]
pub struct Order {
    seed: u64,
    shuffle: bool,
    parts: Vec<Part>,
}

#[derive(Clone, Debug)]
struct Part {
    /// Share of the samples; all shares add up to 1.
    weight: f64,
    length: usize,
    /// The permutation used last, with its epoch.
    cached: Option<(u64, Vec<u32>)>,
}

/// Where a sample of the run comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pick {
    /// The part.
    pub part: usize,
    /// Index of the sequence in the part.
    pub index: usize,
}

impl Order {
    /// The order over one part of `length` sequences.
    pub fn single(seed: u64, length: usize, shuffle: bool) -> Result<Order, Error> {
        Order::blend(seed, &[(1.0, length)], shuffle)
    }

    /// The order over parts of (weight, length), drawn in proportion to their weights.
    pub fn blend(seed: u64, parts: &[(f64, usize)], shuffle: bool) -> Result<Order, Error> {
        let total: f64 = parts.iter().map(|(weight, _)| weight).sum();
        for (at, (weight, length)) in parts.iter().enumerate() {
            if *length == 0 {
                return Err(Error::Empty(at));
            }
            if !(weight.is_finite() && *weight > 0.0 && total.is_finite()) {
                return Err(Error::Weight(at, weight.to_string()));
            }
        }
        let part = |(weight, length): &(f64, usize)| Part {
            weight: weight / total,
            length: *length,
            cached: None,
        };
        if parts.is_empty() {
            return Err(Error::Empty(0));
        }
        Ok(Order { seed, shuffle, parts: parts.iter().map(part).collect() })
    }

    /// Sample `number` of the run.
    pub fn pick(&mut self, number: u64) -> Pick {
        let (part, nth) = self.part_of(number);
        let length = self.parts[part].length as u64;
        let (epoch, position) = (nth / length, (nth % length) as usize);
        let index = if self.shuffle { self.shuffled(part, epoch, position) } else { position };
        Pick { part, index }
    }

    fn shuffled(&mut self, part: usize, epoch: u64, position: usize) -> usize {
        let name = format!("data/order/{part}/{epoch}");
        let seed = self.seed;
        let part = &mut self.parts[part];
        if part.cached.as_ref().is_none_or(|(cached, _)| *cached != epoch) {
            let order = Stream::new(seed, &name).permutation(part.length);
            part.cached = Some((epoch, order.into_iter().map(|index| index as u32).collect()));
        }
        part.cached.as_ref().map_or(0, |(_, order)| order[position] as usize)
    }

    /// The part that gives sample `number`, and how many it gave before.
    ///
    /// Webster's apportionment: the k-th sample of a part with weight w is due at (k + ½) / w, and
    /// samples come in the order of these times, so that after any number of samples each part has
    /// given its share to within one or so.
    fn part_of(&self, number: u64) -> (usize, u64) {
        if self.parts.len() == 1 {
            return (0, number);
        }
        let due_by = |time: f64| -> u64 { self.parts.iter().map(|part| part.due_by(time)).sum() };
        // At `late` more than `number` samples are due: each part is at most ½ behind its share.
        let (mut early, mut late) = (0.0, number as f64 + self.parts.len() as f64 + 1.0);
        loop {
            let middle = early + (late - early) / 2.0;
            if middle <= early || middle >= late {
                break;
            }
            if due_by(middle) > number { late = middle } else { early = middle }
        }
        // `late` is the moment at which sample `number` falls due; parts due at once go in order.
        let mut rest = number - due_by(early);
        for (at, part) in self.parts.iter().enumerate() {
            let (before, after) = (part.due_by(early), part.due_by(late));
            if rest < after - before {
                return (at, before + rest);
            }
            rest -= after - before;
        }
        (0, number)
    }
}

impl Part {
    /// Samples of this part that are due up to `time`.
    #[expect(clippy::cast_sign_loss, reason = "weights and times are not negative")]
    fn due_by(&self, time: f64) -> u64 {
        (self.weight * time + 0.5).floor() as u64
    }
}

/// How a step's samples are cut into micro-batches and shared by the replicas.
///
/// A step's samples are cut into micro-batches in order; micro-batch `m` of replica `r` is number
/// `m × replicas + r` of them. What is in a micro-batch does not depend on the number of replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    global: usize,
    micro: usize,
    replicas: usize,
    replica: usize,
}

impl Share {
    /// The share of `replica` of `replicas`, for `global` sequences per step and `micro` per
    /// micro-batch.
    pub fn new(
        global: usize,
        micro: usize,
        replicas: usize,
        replica: usize,
    ) -> Result<Share, Error> {
        let per_round = micro.checked_mul(replicas).filter(|count| *count > 0);
        let even = per_round.is_some_and(|count| global > 0 && global.is_multiple_of(count));
        if !even || replica >= replicas {
            return Err(Error::Uneven { global, micro, replicas });
        }
        Ok(Share { global, micro, replicas, replica })
    }

    /// Sequences per step over all replicas.
    pub fn global_batch_size(&self) -> usize {
        self.global
    }

    /// Micro-batches of this replica in a step.
    pub fn micro_batches(&self) -> usize {
        self.global / (self.micro * self.replicas)
    }

    /// Sample numbers of this replica's micro-batch `micro_batch` in the step that starts after
    /// `consumed` samples.
    pub fn numbers(&self, consumed: u64, micro_batch: usize) -> Range<u64> {
        let at = (micro_batch * self.replicas + self.replica) * self.micro;
        let start = consumed + at as u64;
        start..start + self.micro as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn picks(order: &mut Order, numbers: Range<u64>) -> Vec<Pick> {
        numbers.map(|number| order.pick(number)).collect()
    }

    #[test]
    fn an_epoch_holds_every_sequence_once_and_epochs_differ() {
        let mut order = Order::single(3, 50, true).unwrap();
        let first: Vec<_> = picks(&mut order, 0..50).iter().map(|pick| pick.index).collect();
        let second: Vec<_> = picks(&mut order, 50..100).iter().map(|pick| pick.index).collect();
        assert_ne!(first, second);
        for epoch in [first, second] {
            assert_eq!(epoch.into_iter().collect::<BTreeSet<_>>(), (0..50).collect());
        }
    }

    #[test]
    fn impossible_orders_and_cuts_are_refused() {
        assert_eq!(Order::single(1, 0, true).unwrap_err(), Error::Empty(0));
        assert!(matches!(Order::blend(1, &[(0.0, 3)], true), Err(Error::Weight(0, _))));
        assert!(matches!(Order::blend(1, &[(f64::NAN, 3)], true), Err(Error::Weight(0, _))));
        assert!(Share::new(32, 8, 3, 0).is_err());
        assert!(Share::new(32, 0, 1, 0).is_err());
        assert!(Share::new(32, 8, 2, 2).is_err());
    }

    proptest! {
        #[test]
        fn asking_in_any_order_gives_the_same(seed: u64, numbers in prop::collection::vec(0u64..400, 1..40)) {
            let parts = [(0.7, 30), (0.2, 11), (0.1, 5)];
            let mut forward = Order::blend(seed, &parts, true).unwrap();
            let all = picks(&mut forward, 0..400);
            let mut other = Order::blend(seed, &parts, true).unwrap();
            for number in numbers {
                prop_assert_eq!(other.pick(number), all[number as usize]);
            }
        }

        #[test]
        fn a_blend_keeps_its_weights(weights in prop::collection::vec(0.01f64..1.0, 1..6), count in 1u64..500) {
            let parts: Vec<_> = weights.iter().map(|weight| (*weight, 7)).collect();
            let mut order = Order::blend(1, &parts, false).unwrap();
            let total: f64 = weights.iter().sum();
            let all = picks(&mut order, 0..count);
            for (part, weight) in weights.iter().enumerate() {
                let given: Vec<_> = all.iter().filter(|pick| pick.part == part).collect();
                let share = weight / total * count as f64;
                prop_assert!((given.len() as f64 - share).abs() <= weights.len() as f64);
                for (nth, pick) in given.iter().enumerate() {
                    prop_assert_eq!(pick.index, nth % 7);
                }
            }
        }

        #[test]
        fn replicas_share_a_step_without_overlap(micro in 1usize..4, replicas in 1usize..5, rounds in 1usize..4) {
            let global = micro * replicas * rounds;
            let mut seen = Vec::new();
            for replica in 0..replicas {
                let share = Share::new(global, micro, replicas, replica).unwrap();
                for micro_batch in 0..share.micro_batches() {
                    seen.extend(share.numbers(1000, micro_batch));
                }
            }
            seen.sort_unstable();
            prop_assert_eq!(seen, (1000..1000 + global as u64).collect::<Vec<_>>());
        }
    }
}
