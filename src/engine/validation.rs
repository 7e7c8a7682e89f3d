//! The loss on a held-out split.

use super::step::{Trainer, targets, view};
use crate::data::feed::{self, Feed};
use crate::model::batch::Targets;

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

/// Mean loss per learned token, in nats, over the first `sequences` sequences of `feed`; replicas
/// share the micro-batches.
pub fn loss(
    trainer: &Trainer,
    feed: &mut Feed,
    sequences: u64,
    micro_batch_size: usize,
) -> Result<f64, Error> {
    let Trainer { mesh, model, .. } = trainer;
    let (mut sum, mut count) = (0.0, 0);
    let firsts = (0..sequences).step_by(micro_batch_size);
    for first in firsts.skip(mesh.at.data).step_by(mesh.degrees.data) {
        let batch = feed.micro_batch(first..sequences.min(first + micro_batch_size as u64))?;
        let (places, labels) = targets(&batch);
        if places.is_empty() {
            continue;
        }
        let scores = model.scores(&view(&batch), &Targets::new(&places, &labels))?;
        sum -= scores.iter().map(|score| score.log_probability).sum::<f64>();
        count += scores.len();
    }
    let all = mesh.data.sum_numbers(&[sum, count as f64])?;
    if all[1] == 0.0 { Err(Error::NothingLearned) } else { Ok(all[0] / all[1]) }
}
