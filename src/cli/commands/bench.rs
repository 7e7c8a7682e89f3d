//! `sft-run bench`: the speed of a recipe's training step on its own data.

use crate::base::suggest;
use crate::cli::arguments::BenchArguments;
use crate::cli::collector::Tee;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::nodes;
use crate::cli::open::{self, Opened};
use crate::cli::run_folder::{Begun, RunFolder};
use crate::cli::scratch::Scratch;
use crate::cli::screen::{Layout, Screen};
use crate::cli::session::Session;
use crate::cli::tensorboard::TensorBoard;
use crate::plan::{Source, Stage};
use crate::report::numbers::{bytes, count, quantity};
use crate::runner;
use crate::spec::backend::Backend;
use crate::spec::event::{Event, Sink, StepMetrics};
use crate::spec::job::{Job, TrainJob};
use crate::stages::bench::{self, Report, Steps};
use crate::stages::{self, Folders};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

/// What was measured, for programs.
#[derive(Debug, Serialize)]
struct Measured {
    stage: String,
    parameters: usize,
    steps: usize,
    /// Median, slowest and fastest step.
    tokens_per_second: f64,
    tokens_per_second_min: f64,
    tokens_per_second_max: f64,
    tokens_per_step: f64,
    learned_tokens_per_step: f64,
    /// Median, fastest and slowest step.
    seconds_per_step: f64,
    seconds_per_step_min: f64,
    seconds_per_step_max: f64,
    /// Of the matrix products with weights, in the median step; attention's own are not counted.
    flop_per_second: f64,
    /// Share of the stated rate of the GPUs together: products with weights and attention's, the causal
    /// mask not discounted, in the median step; none where the rate is not known.
    model_flop_utilization: Option<f64>,
    /// That rate, operations per second.
    stated_flop_per_second: Option<f64>,
    gpu: Option<String>,
    peak_memory_bytes: Option<u64>,
    loss: f64,
    /// Of further steps, by what the GPU did and `idle` between; none on a CPU.
    seconds_by_part: Option<BTreeMap<&'static str, f64>>,
    /// What writing journals, metrics, events and TensorBoard's file takes of each step.
    bookkeeping_seconds_per_step: f64,
    environment: BTreeMap<String, String>,
}

/// Runs the command.
pub(in crate::cli) fn run(session: &Session, arguments: &BenchArguments) -> Result<Exit, Failure> {
    let opened = open::plan(session, &arguments.recipe)?;
    nodes::refuse_several(&opened.checked, "bench")?;
    if !opened.plan.missing().is_empty() {
        return Err(runner::Error::Missing(opened.plan.missing().to_vec()).into());
    }
    let (stage, job) = train_stage(&opened, arguments.stage.as_deref())?;
    let inputs = inputs(session, &opened, stage)?;
    let backend = stage.backend.unwrap_or(Backend::Cpu);
    let folders = Folders { inputs, backend, output: PathBuf::new() };
    let steps = Steps { warmup: arguments.warmup, timed: arguments.steps };
    let report = bench::run(job, &folders, steps).map_err(|error| Failure::failed(&error))?;
    let bookkeeping = bookkeeping(&opened)?;
    let environment = opened.environment(session);
    let measured = Measured { environment, ..measured(stage, &report, bookkeeping) };
    if session.terminal.json {
        let text =
            serde_json::to_string_pretty(&measured).map_err(|error| Failure::failed(&error))?;
        session.terminal.result(&text);
    } else {
        session.terminal.result(&text(&measured));
    }
    Ok(Exit::Done)
}

/// Seconds that the records of one step take, all of them switched on: the stage's journal and
/// trace, the run folder's metrics and events, TensorBoard's file.
fn bookkeeping(opened: &Opened) -> Result<f64, Failure> {
    const STEPS: u64 = 1000;
    let failed = |error: std::io::Error| Failure::failed(&error);
    let steps: Vec<StepMetrics> = (1..=STEPS).map(some_metrics).collect();
    let scratch = Scratch::new(opened.store.root(), "bench")?;
    let started = Instant::now();
    bench::journal(scratch.path(), &steps).map_err(failed)?;
    let mut seconds = started.elapsed().as_secs_f64();
    let begun = Begun { holder: "sft-run bench".to_owned(), ..Begun::default() };
    let folder = RunFolder::open(&scratch.path().join("run"), "", &begun)?;
    let board = TensorBoard::new(folder.path(), 1);
    let sink = Tee(vec![&folder, &board]);
    let started = Instant::now();
    for metrics in steps {
        sink.emit(Event::Step(metrics));
    }
    seconds += started.elapsed().as_secs_f64();
    folder.check()?;
    Ok(seconds / STEPS as f64)
}

fn some_metrics(step: u64) -> StepMetrics {
    let number = (step as f64).sqrt();
    StepMetrics {
        step,
        consumed_samples: 8 * step,
        reduced_train_loss: number,
        lr: 1e-3 / number,
        grad_norm: Some(number.recip()),
        loss_scale: None,
        tokens: 2048,
        learned_tokens: 1024,
        tokens_per_second: 1e4 * number,
    }
}

/// The train stage of this name, or the last one.
fn train_stage<'o>(
    opened: &'o Opened,
    name: Option<&str>,
) -> Result<(&'o Stage, &'o TrainJob), Failure> {
    let trainings = opened.plan.stages().iter().filter_map(|stage| match &stage.job {
        Job::Train(job) => Some((stage, job)),
        _ => None,
    });
    let trainings: Vec<_> = trainings.collect();
    let Some(name) = name else {
        let none = || Failure::wrong("the recipe has no train stage", "add one to `stages`");
        return trainings.last().copied().ok_or_else(none);
    };
    trainings.iter().copied().find(|(stage, _)| stage.name == name).ok_or_else(|| {
        let known = trainings.iter().map(|(stage, _)| stage.name.as_str());
        let help = suggest::choices(name, "the train stages are", known);
        Failure::wrong(format!("`{name}` is no train stage"), help)
    })
}

/// The stage's inputs; stages that make them run first, unless their outputs are in the cache.
fn inputs(
    session: &Session,
    opened: &Opened,
    stage: &Stage,
) -> Result<BTreeMap<String, PathBuf>, Failure> {
    let mut inputs = BTreeMap::new();
    let stop = Arc::new(AtomicBool::new(false));
    for (name, source) in &stage.inputs {
        let place = match source {
            Source::File(file) => file.path.clone(),
            Source::Stage(upstream) => {
                let mut settings = opened.settings(session);
                settings.to = Some(upstream.clone());
                let screen =
                    Quiet(Screen::new(session.terminal, Layout::of(&opened.plan), stop.clone()));
                let report = runner::run(&opened.plan, &settings, &stages::run, &screen, &stop)?;
                let made = report.stages.into_iter().find(|done| done.stage == *upstream);
                made.map(|done| done.artifact.output).unwrap_or_default()
            }
        };
        inputs.insert(name.clone(), place);
    }
    Ok(inputs)
}

/// Shows work, and says nothing of what is reused.
struct Quiet(Screen);

impl Sink for Quiet {
    fn emit(&self, event: Event) {
        if !matches!(event, Event::StageReused { .. }) {
            self.0.emit(event);
        }
    }
}

fn measured(stage: &Stage, report: &Report, bookkeeping: f64) -> Measured {
    let steps = report.seconds.len();
    let each = |sum: f64| sum / steps as f64;
    let (per_step, seconds) = (each(report.tokens as f64), report.seconds_per_step);
    let rates = || report.seconds.iter().map(|seconds| per_step / seconds);
    let [fastest, slowest] = [f64::min, f64::max].map(|of: fn(f64, f64) -> f64| {
        report.seconds.iter().copied().reduce(of).unwrap_or(f64::NAN)
    });
    Measured {
        stage: stage.name.clone(),
        parameters: report.parameters,
        steps,
        tokens_per_second: report.tokens_per_second,
        tokens_per_second_min: rates().fold(f64::INFINITY, f64::min),
        tokens_per_second_max: rates().fold(0.0, f64::max),
        tokens_per_step: per_step,
        learned_tokens_per_step: each(report.learned_tokens as f64),
        seconds_per_step: seconds,
        seconds_per_step_min: fastest,
        seconds_per_step_max: slowest,
        flop_per_second: each(report.matrix_operations) / seconds,
        model_flop_utilization: report.peak_rate.map(|rate| {
            each(report.matrix_operations + report.attention_operations) / seconds / rate
        }),
        stated_flop_per_second: report.peak_rate,
        gpu: report.gpu.clone(),
        peak_memory_bytes: report.peak_memory,
        loss: report.loss,
        seconds_by_part: report.parts.as_ref().map(|times| {
            let parts = times.parts.iter().map(|(part, seconds)| (part.name(), *seconds));
            parts.chain([("idle", times.idle)]).collect()
        }),
        bookkeeping_seconds_per_step: bookkeeping,
        environment: BTreeMap::new(),
    }
}

fn text(measured: &Measured) -> String {
    let tokens = |number: f64| quantity(number.round());
    let mut lines = vec![
        (
            "tokens/s",
            format!(
                "{}  (median of {} steps; {} to {})",
                tokens(measured.tokens_per_second),
                measured.steps,
                tokens(measured.tokens_per_second_min),
                tokens(measured.tokens_per_second_max),
            ),
        ),
        (
            "step",
            format!(
                "{:.1} ms  ({:.1} to {:.1}), {} tokens of which {} are learned",
                measured.seconds_per_step * 1e3,
                measured.seconds_per_step_min * 1e3,
                measured.seconds_per_step_max * 1e3,
                tokens(measured.tokens_per_step),
                tokens(measured.learned_tokens_per_step),
            ),
        ),
        (
            "compute",
            format!("{:.1} GFLOP/s in products with weights", measured.flop_per_second / 1e9),
        ),
        (
            "bookkeeping",
            format!(
                "{:.3} ms a step, {:.2} % of it",
                measured.bookkeeping_seconds_per_step * 1e3,
                100.0 * measured.bookkeeping_seconds_per_step / measured.seconds_per_step,
            ),
        ),
        ("parameters", count(measured.parameters as u64)),
        ("threads", measured.environment.get("cores").cloned().unwrap_or_default()),
    ];
    let share = measured.model_flop_utilization.zip(measured.stated_flop_per_second);
    lines.extend(share.map(|(share, rate)| {
        let formula = "(6 × blocks' weights × tokens + 6 × head's × learned + 12 × layers × width × Σ length²) ÷ step";
        ("MFU", format!("{:.1} % of {:.0} TFLOP/s: {formula}", share * 100.0, rate / 1e12))
    }));
    lines.extend(measured.gpu.clone().map(|name| ("GPU", name)));
    lines.extend(
        measured.peak_memory_bytes.map(|peak| ("memory", format!("{} at most", bytes(peak)))),
    );
    let lines = lines.iter().map(|(name, text)| format!("{name:<11} {text}\n"));
    lines.chain(measured.seconds_by_part.as_ref().map(by_part)).collect()
}

/// What each part of a step takes, the longest first.
fn by_part(parts: &BTreeMap<&'static str, f64>) -> String {
    let mut parts: Vec<_> = parts.iter().collect();
    parts.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    let whole: f64 = parts.iter().map(|(_, seconds)| **seconds).sum();
    let line = |(name, seconds): (&&str, &f64)| {
        format!("  {name:<15} {:>9.2} ms {:>6.1} %\n", seconds * 1e3, 100.0 * seconds / whole)
    };
    let lines: String = parts.into_iter().map(line).collect();
    format!("\nwhere a step goes (on one GPU, in further steps)\n{lines}")
}

#[cfg(test)]
mod tests {
    use super::by_part;
    use std::collections::BTreeMap;

    #[test]
    fn parts_are_a_table() {
        let table =
            by_part(&BTreeMap::from([("idle", 0.001), ("products", 0.17), ("norms", 0.029)]));
        let rows: Vec<&str> = table.lines().skip(2).collect();
        assert_eq!(
            rows,
            [
                "  products           170.00 ms   85.0 %",
                "  norms               29.00 ms   14.5 %",
                "  idle                 1.00 ms    0.5 %",
            ]
        );
    }
}
