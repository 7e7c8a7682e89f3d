//! Times the training step on real data.

use super::peak::operations_per_second;
use super::state::{Begin, share};
use super::step::Trainer;
use super::training::{Error, first_failure};
use crate::data::feed::Feed;
use crate::kernels::device;
use crate::kernels::timing::{self, Times};
use crate::layout::parameters::{Parameter, Place, Role, element_count, table};
use crate::parallel::ranks;
use crate::spec::architecture::Architecture;
use crate::spec::backend::Backend;
use crate::spec::job::TrainJob;
use std::path::Path;
use std::time::Instant;

/// How many steps are run.
#[derive(Clone, Copy, Debug)]
pub struct Steps {
    /// Steps before the clock starts.
    pub warmup: u64,
    /// Timed steps; at least 1.
    pub timed: u64,
}

/// What was measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Parameters of the model.
    pub parameters: usize,
    /// Tokens of the timed steps, padding not counted.
    pub tokens: u64,
    /// Learned tokens of the timed steps.
    pub learned_tokens: u64,
    /// Median over the timed steps of tokens per second.
    pub tokens_per_second: f64,
    /// Seconds of each timed step.
    pub seconds: Vec<f64>,
    /// Their median.
    pub seconds_per_step: f64,
    /// Floating-point operations of the timed steps' matrix products with weights: 6 for each weight
    /// of a block and token, and for each weight of the output layer and learned token.
    /// Attention's own products are not counted.
    pub matrix_operations: f64,
    /// Operations of attention's own products in the timed steps: 12 for each channel of a query
    /// head and pair of tokens of a segment, whether the causal mask leaves it or not, as is usual.
    pub attention_operations: f64,
    /// The devices' stated rate of matrix products in this format, all together, operations per
    /// second, if known.
    pub peak_rate: Option<f64>,
    /// Name of the GPU; none on the CPU.
    pub gpu: Option<String>,
    /// Most bytes that tensors took on the GPU; none on the CPU.
    pub peak_memory: Option<u64>,
    /// Loss of the last step.
    pub loss: f64,
    /// Seconds of a step by what the GPU did in it, measured in further steps; none on a CPU.
    pub parts: Option<Times>,
}

/// Two operations for each weight in the forward pass, four in the backward.
fn matrix_operations(architecture: &Architecture, tokens: u64, learned_tokens: u64) -> f64 {
    let blocks: usize = table(architecture)
        .iter()
        .filter(|parameter| {
            matches!(parameter.place, Place::Layer(_)) && parameter.role == Role::Weight
        })
        .map(Parameter::element_count)
        .sum();
    let head = architecture.padded_vocab_size * architecture.hidden_size;
    6.0 * (blocks as f64 * tokens as f64 + head as f64 * learned_tokens as f64)
}

/// Squared lengths of a micro-batch's segments, summed.
fn squared_lengths(segments: &[usize]) -> f64 {
    segments.windows(2).map(|pair| ((pair[1] - pair[0]) as f64).powi(2)).sum()
}

/// Trains from the weights of checkpoint `start` on all ranks and measures; nothing is written.
pub fn run(
    job: &TrainJob,
    (backend, start): (Backend, &Path),
    data: &Feed,
    steps: Steps,
) -> Result<Report, Error> {
    super::training::check_is_built(job)?;
    let begin = Begin::at(job, start)?.on(backend);
    let reports = ranks::run(&job.trainer.degrees, |mesh| {
        let trainer = begin.trainer(job, &mesh)?;
        measure(job, trainer, data.clone(), steps)
    });
    Ok(reports.map_err(first_failure)?.remove(0))
}

/// One rank's steps, as it sees them.
fn measure(
    job: &TrainJob,
    mut trainer: Trainer,
    mut data: Feed,
    steps: Steps,
) -> Result<Report, Error> {
    let share = share(job, &trainer.mesh)?;
    let device = trainer.model.weights().device().clone();
    let (mut tokens, mut learned_tokens, mut loss, mut squares) = (0, 0, f64::NAN, 0.0);
    let (mut seconds, mut rates) = (Vec::new(), Vec::new());
    // As in a training: from one step's outcome to the next's, without waiting in between for the
    // optimizer, which the next step's first kernels follow.
    let mut started = Instant::now();
    for step in 0..steps.warmup + steps.timed {
        let consumed = step * share.global_batch_size() as u64;
        let is_timed = step >= steps.warmup;
        let next = |number| {
            let batch = data.micro_batch(share.numbers(consumed, number))?;
            squares += if is_timed { squared_lengths(&batch.segments) } else { 0.0 };
            Ok(batch)
        };
        let outcome = trainer.step(step, share.micro_batches(), next)?;
        let elapsed = started.elapsed().as_secs_f64();
        started = Instant::now();
        loss = outcome.loss;
        if is_timed {
            tokens += outcome.tokens;
            learned_tokens += outcome.learned_tokens;
            seconds.push(elapsed);
            rates.push(outcome.tokens as f64 / elapsed);
        }
    }
    // Events between the kernels take time of their own, so these steps are not among the timed.
    timing::begin(&device)?;
    for step in steps.warmup + steps.timed..steps.warmup + steps.timed + PARTED {
        let consumed = step * share.global_batch_size() as u64;
        let next = |number| data.micro_batch(share.numbers(consumed, number));
        trainer.step(step, share.micro_batches(), next)?;
    }
    let parts = timing::end(&device)?.map(per_step);
    let architecture = &job.model.architecture;
    let width = architecture.num_attention_heads * architecture.kv_channels;
    let (gpu, format) = (device::name(&device)?, trainer.model.weights().formats().products);
    // Every replica sees its own segments; this one's stand for all.
    let squares = squares * job.trainer.degrees.data as f64;
    Ok(Report {
        parameters: element_count(architecture),
        tokens,
        learned_tokens,
        tokens_per_second: median(&mut rates),
        matrix_operations: matrix_operations(architecture, tokens, learned_tokens),
        attention_operations: 12.0 * (architecture.num_layers * width) as f64 * squares,
        peak_rate: gpu
            .as_deref()
            .and_then(|name| operations_per_second(name, format))
            .map(|rate| rate * job.trainer.degrees.world_size() as f64),
        gpu,
        peak_memory: device::memory(&device)?.map(|[_, most]| most),
        seconds_per_step: median(&mut seconds.clone()),
        seconds,
        loss,
        parts,
    })
}

/// Steps whose parts are timed on a GPU.
const PARTED: u64 = 3;

fn per_step(times: Times) -> Times {
    let share = |seconds: f64| seconds / PARTED as f64;
    let parts = times.parts.into_iter().map(|(part, seconds)| (part, share(seconds)));
    Times { parts: parts.collect(), idle: share(times.idle) }
}

/// The middle value; the mean of the two in the middle of an even number.
fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() % 2 {
        0 if values.is_empty() => f64::NAN,
        0 => f64::midpoint(values[middle - 1], values[middle]),
        _ => values[middle],
    }
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn the_median_is_in_the_middle() {
        let medians = [median(&mut [3.0, 1.0, 2.0]), median(&mut [4.0, 1.0, 2.0, 3.0])];
        assert_eq!(medians.map(f64::to_bits), [2.0, 2.5].map(f64::to_bits));
    }
}
