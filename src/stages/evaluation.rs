//! Metrics of a model on held-out samples: for the evaluate stage, and between training steps.

use super::Folders;
use super::held_out::{self, HeldOut};
use crate::data::tokenizer;
use crate::engine::generation::{Generated, Session, SessionError, Update, batch};
use crate::engine::scoring::{self, Scored};
use crate::metrics::scorer::Surroundings;
use crate::metrics::{self, Likelihood, Results, Scorer, Texts};
use crate::spec::event::{Event, Sample, Sink};
use crate::spec::job::EvaluateStage;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// Lines of a metric program's stderr that are passed on.
const HEARD_LINES: usize = 100;

/// Why an evaluation failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
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
    /// The stop flag was set.
    #[error("stopped after {0}")]
    Stopped(String),
}

/// Samples and metrics of an evaluation, ready to be applied to a model.
#[derive(Debug)]
pub(super) struct Evaluation {
    settings: EvaluateStage,
    held_out: Vec<HeldOut>,
    scorer: Scorer,
}

/// What an evaluation came to.
#[derive(Debug)]
pub(super) struct Evaluated {
    pub(super) results: Results,
    /// The generated samples with their scores; empty when no metric needs text.
    pub(super) samples: Vec<Sample>,
}

/// Who hears of an evaluation, and who may stop it.
#[derive(Clone, Copy)]
pub(super) struct Around<'a> {
    pub(super) sink: &'a dyn Sink,
    pub(super) stop: &'a AtomicBool,
}

impl Evaluation {
    /// Reads the samples that `settings` choose from `data`, a tokenize output, and prepares its
    /// metrics, whose files are the inputs below `files` (`metrics` or `validate.metrics`).
    pub(super) fn prepare(
        settings: &EvaluateStage,
        data: &Path,
        folders: &Folders,
        files: &str,
    ) -> Result<Evaluation, Error> {
        let file = |name: &str| -> Option<PathBuf> {
            folders.inputs.get(&format!("{files}.{name}")).cloned()
        };
        // Metrics first: their mistakes are told before anything is read.
        let scorer = Scorer::new(&settings.metrics, &file)?;
        let held_out = held_out::read(data, settings)?;
        Ok(Evaluation { settings: settings.clone(), held_out, scorer })
    }

    /// Number of samples.
    pub(super) fn len(&self) -> usize {
        self.held_out.len()
    }

    /// Applies every metric to the model of `session`.
    pub(super) fn run(&self, session: Session<'_>, around: Around<'_>) -> Result<Evaluated, Error> {
        let likelihoods = if self.scorer.needs_likelihood() {
            self.likelihoods(session, around)?
        } else {
            Vec::new()
        };
        let mut samples =
            if self.scorer.needs_text() { self.samples(session, around)? } else { Vec::new() };
        let rows: Vec<Texts<'_>> = samples.iter().map(texts).collect();
        let mut heard = 0;
        let mut hear = |metric: &str, line: &str| {
            heard += 1;
            let text = match heard {
                HEARD_LINES => format!("`{metric}` says more, which is left out"),
                _ => format!("`{metric}` says: {line}"),
            };
            if heard <= HEARD_LINES {
                around.sink.emit(Event::Note { text });
            }
        };
        let seed = self.settings.gen_kwargs.seed;
        let mut around = Surroundings { stop: around.stop, hear: &mut hear, seed };
        let mut results = self.scorer.score(&rows, &likelihoods, &mut around);
        drop(rows);
        for (sample, scores) in samples.iter_mut().zip(std::mem::take(&mut results.rows)) {
            sample.scores = scores;
        }
        Ok(Evaluated { results, samples })
    }

    /// Likelihood of each sample's expected answer.
    fn likelihoods(
        &self,
        session: Session<'_>,
        around: Around<'_>,
    ) -> Result<Vec<Likelihood>, Error> {
        let scored: Vec<Scored<'_>> = self
            .held_out
            .iter()
            .map(|sample| Scored { tokens: &sample.tokens, learned: &sample.learned })
            .collect();
        let progress = |done| around.sink.emit(progress("scoring", done, scored.len()));
        let sums = scoring::score(session.model(), &scored, around.stop, progress)
            .map_err(|error| Error::Score(error.into()))?;
        if around.stop.load(Ordering::Relaxed) {
            return Err(Error::Stopped(format!(
                "{} of {} samples scored",
                sums.len(),
                scored.len()
            )));
        }
        let likelihood = |sums: scoring::Sums| {
            let scoring::Sums { loss_sum, tokens, correct } = sums;
            Likelihood { loss_sum, tokens, correct }
        };
        Ok(sums.into_iter().map(likelihood).collect())
    }

    /// The samples that have a prompt, and their prompts; it is an error when none has one.
    fn prompts(
        &self,
        session: Session<'_>,
        sink: &dyn Sink,
    ) -> Result<(Vec<&HeldOut>, Vec<Vec<u32>>), Error> {
        let add_bos = self.settings.gen_kwargs.add_bos;
        let begin = |tokens: &[u32]| session.begun(tokens, add_bos);
        session.check_bos(add_bos)?;
        let prompt = |sample: &HeldOut| sample.prompt_tokens().map(begin);
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
                    sink.emit(Event::Note { text });
                }
                Ok((asked, prompts))
            }
        }
    }

    /// Generates an answer to every prompt.
    fn samples(&self, session: Session<'_>, around: Around<'_>) -> Result<Vec<Sample>, Error> {
        let (asked, prompts) = self.prompts(session, around.sink)?;
        let mut done = 0;
        let mut listener = |update: Update<'_>| {
            if let Update::Done { .. } = update {
                done += 1;
                around.sink.emit(progress("generating", done, prompts.len()));
            }
        };
        let settings = &self.settings.gen_kwargs;
        let generated = session.decode(&prompts, settings, around.stop, &mut listener);
        let pairs = asked.into_iter().zip(generated.map_err(stopped_or_failed)?);
        Ok(pairs.map(|(asked, generated)| sample(asked, generated)).collect())
    }
}

fn texts(sample: &Sample) -> Texts<'_> {
    let expected = sample.expected.as_deref().unwrap_or_default();
    Texts { prompt: &sample.prompt, expected, output: &sample.output }
}

fn sample(asked: &HeldOut, generated: Generated) -> Sample {
    Sample {
        task: Some(asked.task.clone()),
        prompt: asked.prompt.clone(),
        expected: Some(asked.expected.clone()),
        output: generated.text,
        stop_reason: generated.stop_reason,
        tokens: generated.tokens.len(),
        token_ids: generated.tokens,
        logprob: generated.logprob,
        full_logprob: generated.full_logprob,
        scores: std::collections::BTreeMap::new(),
    }
}

/// So many of so many samples.
pub(super) fn progress(task: &str, done: usize, total: usize) -> Event {
    let (done, total) = (done as u64, total as u64);
    Event::Progress { task: task.to_owned(), done, total, unit: "samples".to_owned() }
}

/// One JSON object a line.
pub(super) fn lines(samples: &[Sample]) -> String {
    let line = |sample: &Sample| format!("{}\n", serde_json::json!(sample));
    samples.iter().map(line).collect()
}

fn stopped_or_failed(error: SessionError) -> Error {
    match error {
        SessionError::Decode(batch::Error::Stopped { done, total }) => {
            Error::Stopped(format!("{done} of {total} answers generated"))
        }
        error => Error::Generate(error),
    }
}
