//! The loss on a held-out split.

use super::pipeline::Stage;
use super::step::Trainer;
use crate::data::feed::{self, Feed};

/// Why a validation failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A batch cannot be read.
    #[error("cannot read the validation data")]
    Data(#[from] feed::Error),
    /// The computation cannot be carried out.
    #[error("the computation failed")]
    Tensor(#[from] candle_core::Error),
    /// There is nothing to measure.
    #[error("no token of the validation data is learned: set trainer.limit_val_batches to 0")]
    NothingLearned,
}

/// Micro-batches for each pipeline stage that are read at once: enough to keep all stages busy.
const AT_ONCE: usize = 4;

/// Mean loss per learned token, in nats, over the first `sequences` sequences of `feed`; replicas
/// share the micro-batches, and every rank knows the result.
pub fn loss(
    trainer: &Trainer,
    feed: &mut Feed,
    sequences: u64,
    micro_batch_size: usize,
) -> Result<f64, Error> {
    let Trainer { mesh, model, .. } = trainer;
    let stage = Stage { model, mesh };
    let (mut sum, mut count) = (0.0, 0);
    let firsts = (0..sequences).step_by(micro_batch_size);
    let mut mine = firsts.skip(mesh.at.data).step_by(mesh.degrees.data).peekable();
    while mine.peek().is_some() {
        let some = mine.by_ref().take(AT_ONCE * mesh.degrees.pipeline);
        let batch = |first| feed.micro_batch(first..sequences.min(first + micro_batch_size as u64));
        let batches = some.map(batch).collect::<Result<Vec<_>, _>>()?;
        let scores = stage.scores(&batches)?;
        sum -= scores.iter().map(|score| score.log_probability).sum::<f64>();
        count += scores.len();
    }
    // The tensor ranks of the last stage all have the scores; one of them counts.
    let numbers = if mesh.at.tensor == 0 { [sum, count as f64] } else { [0.0, 0.0] };
    let all = mesh.world.sum_numbers(&numbers)?;
    if all[1] == 0.0 { Err(Error::NothingLearned) } else { Ok(all[0] / all[1]) }
}
