//! The evaluate stage: metrics of a model on held-out samples, with the samples themselves.

use super::held_out::{self, HeldOut};
use super::{Folders, Outcome};
use crate::base::atomic_file;
use crate::checkpoint::native;
use crate::data::tokenizer::{self, Tokenizer};
use crate::engine::generation::{Generated, Session, SessionError, Update, batch};
use crate::engine::scoring::{self, Scored};
use crate::metrics::{self, Collector, Likelihood};
use crate::spec::event::{Event, Sample, Sink};
use crate::spec::job::EvaluateJob;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

/// Samples that are sent as events, for people to see.
const SHOWN_SAMPLES: usize = 5;

/// Why evaluate failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] native::Error),
    /// The tokenizer.
    #[error(transparent)]
    Tokenizer(#[from] tokenizer::Error),
    /// The samples.
    #[error(transparent)]
    Samples(#[from] held_out::Error),
    /// A sample cannot be generated from.
    #[error(
        "sample `{start}…` of task `{task}` has no prompt apart from its answer, so metrics of \
         generated text do not apply: name a task with `prompt` and `answer`, or only loss, \
         perplexity and token_accuracy"
    )]
    NoPrompt {
        /// The task.
        task: String,
        /// The beginning of the sample's text.
        start: String,
    },
    /// Generation.
    #[error("cannot generate answers")]
    Generate(#[from] SessionError),
    /// Scoring.
    #[error("cannot score the expected answers")]
    Score(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The metrics.
    #[error(transparent)]
    Metrics(#[from] metrics::Error),
    /// The output.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Writes `metrics.json` (a number by metric name) and `samples.jsonl` (a [`Sample`] a line, empty
/// when no metric needs generated text) into the output folder.
pub fn run(
    job: &EvaluateJob,
    folders: &Folders,
    sink: &dyn Sink,
    stop: &AtomicBool,
) -> Result<Outcome, super::Error> {
    let data = folders.input("data")?;
    let model = super::load_model(folders.input("model")?, folders.backend).map_err(Error::from)?;
    let tokenizer = Tokenizer::open(&data.join("tokenizer")).map_err(Error::from)?;
    let session = Session::new(model, tokenizer).map_err(Error::from)?;
    let held_out = held_out::read(data, &job.stage).map_err(Error::from)?;
    let evaluation = Evaluation { job, session: &session, held_out: &held_out, sink, stop };
    let mut collector = Collector::new(&job.stage.metrics);
    if collector.needs_likelihood() {
        collector.add_likelihood(evaluation.likelihood()?);
    }
    let samples =
        if collector.needs_text() { evaluation.samples(&mut collector)? } else { Vec::new() };
    let mut facts = collector.finish().map_err(Error::from)?;
    write(folders, "metrics.json", &pretty(&facts))?;
    write(folders, "samples.jsonl", &lines(&samples))?;
    facts.insert("samples".to_owned(), held_out.len() as f64);
    Ok(Outcome { facts })
}

struct Evaluation<'a> {
    job: &'a EvaluateJob,
    session: &'a Session,
    held_out: &'a [HeldOut],
    sink: &'a dyn Sink,
    stop: &'a AtomicBool,
}

impl Evaluation<'_> {
    /// Likelihood of the expected answers.
    fn likelihood(&self) -> Result<Likelihood, super::Error> {
        let scored: Vec<Scored<'_>> = self
            .held_out
            .iter()
            .map(|sample| Scored { tokens: &sample.tokens, learned: &sample.learned })
            .collect();
        let progress = |done| self.sink.emit(progress("scoring", done, scored.len()));
        let sums = scoring::score(self.session.model(), &scored, self.stop, progress)
            .map_err(|error| Error::Score(error.into()))?;
        if self.stop.load(Ordering::Relaxed) {
            let place = format!("{} of {} samples scored", sums.len(), scored.len());
            return Err(super::Error::Stopped(place));
        }
        let mut total = Likelihood::default();
        for sum in sums {
            let scoring::Sums { loss_sum, tokens, correct } = sum;
            total += Likelihood { loss_sum, tokens, correct };
        }
        Ok(total)
    }

    /// The samples that have a prompt, and their prompts; it is an error when none has one.
    fn prompts(&self) -> Result<(Vec<&HeldOut>, Vec<Vec<u32>>), Error> {
        let prompt = |sample: &HeldOut| sample.prompt_tokens().map(<[u32]>::to_vec);
        let pairs = self.held_out.iter().filter_map(|sample| Some((sample, prompt(sample)?)));
        let (asked, prompts): (Vec<_>, Vec<_>) = pairs.unzip();
        let left_out = self.held_out.len() - asked.len();
        match self.held_out.first() {
            Some(sample) if asked.is_empty() => Err(Error::NoPrompt {
                task: sample.task.clone(),
                start: format!("{}{}", sample.prompt, sample.expected).chars().take(40).collect(),
            }),
            _ => {
                if left_out > 0 {
                    let text = format!(
                        "{left_out} of {} samples are not asked for an answer: no token of their \
                         prompt is left beside the answer within model.encoder_seq_length",
                        self.held_out.len()
                    );
                    self.sink.emit(Event::Note { text });
                }
                Ok((asked, prompts))
            }
        }
    }

    /// Generates an answer to every prompt and scores it.
    fn samples(&self, collector: &mut Collector) -> Result<Vec<Sample>, super::Error> {
        let (asked, prompts) = self.prompts()?;
        let settings = &self.job.stage.gen_kwargs;
        let mut done = 0;
        let mut listener = |update: Update<'_>| {
            if let Update::Done { .. } = update {
                done += 1;
                self.sink.emit(progress("generating", done, prompts.len()));
            }
        };
        let generated = self.session.decode(&prompts, settings, self.stop, &mut listener);
        let generated = generated.map_err(stopped_or_failed)?;
        let pairs = asked.into_iter().zip(generated);
        let samples: Vec<Sample> =
            pairs.map(|(sample, generated)| scored(sample, generated, collector)).collect();
        for sample in samples.iter().take(SHOWN_SAMPLES) {
            self.sink.emit(Event::Sample(sample.clone()));
        }
        Ok(samples)
    }
}

fn scored(sample: &HeldOut, generated: Generated, collector: &mut Collector) -> Sample {
    let scores = collector.add_text(&sample.expected, &generated.text);
    Sample {
        task: Some(sample.task.clone()),
        prompt: sample.prompt.clone(),
        expected: Some(sample.expected.clone()),
        output: generated.text,
        stop_reason: generated.stop_reason,
        tokens: generated.tokens.len(),
        scores: scores.into_iter().map(|(name, score)| (name.to_owned(), score)).collect(),
    }
}

pub(super) fn progress(task: &str, done: usize, total: usize) -> Event {
    let (done, total) = (done as u64, total as u64);
    Event::Progress { task: task.to_owned(), done, total, unit: "samples".to_owned() }
}

fn stopped_or_failed(error: SessionError) -> super::Error {
    match error {
        SessionError::Decode(batch::Error::Stopped { done, total }) => {
            super::Error::Stopped(format!("{done} of {total} answers generated"))
        }
        error => Error::Generate(error).into(),
    }
}

fn pretty(values: &std::collections::BTreeMap<String, f64>) -> String {
    let numbers = values.iter().map(|(name, value)| (name.clone(), (*value).into()));
    format!("{:#}\n", serde_json::Value::Object(numbers.collect()))
}

/// One JSON object a line.
pub(super) fn lines(samples: &[Sample]) -> String {
    let line = |sample: &Sample| format!("{}\n", serde_json::json!(sample));
    samples.iter().map(line).collect()
}

fn write(folders: &Folders, name: &str, text: &str) -> Result<(), Error> {
    let path = folders.output.join(name);
    let written = atomic_file::write(&path, text.as_bytes());
    written.map_err(|source| Error::Write { path, source })
}
