//! Metrics of a model on held-out samples: for the evaluate stage, and between training steps.

use super::choices::{Pair, Questions};
use super::held_out::{self, HeldOut};
use super::nodes::Nodes;
use super::{Folders, Refusal, generate};
use crate::base::error_chain::with_causes;
use crate::base::numbers::count;
use crate::data::{choices, tokenizer};
use crate::engine::classifier::{self, Classifier};
use crate::engine::generation::{Generated, Session, SessionError, Update, batch};
use crate::engine::replica::RankFailure;
use crate::engine::scoring::{self, Scored};
use crate::engine::team::together;
use crate::metrics::lexicon::Lexicon;
use crate::metrics::scorer::Surroundings;
use crate::metrics::{self, Likelihood, Results, Scorer, Texts};
use crate::spec::event::{Event, Sample, Sink};
use crate::spec::job::EvaluateStage;
use crate::spec::metric::Metric;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
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
    /// The rows of multiple choice.
    #[error(transparent)]
    Choices(Box<choices::Error>),
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
    /// A metric's classifier.
    #[error(transparent)]
    Classifier(#[from] classifier::Error),
    /// The metrics.
    #[error(transparent)]
    Metrics(#[from] metrics::Error),
    /// The stop flag was set.
    #[error("stopped after {0}")]
    Stopped(String),
    /// A rank failed that does not lead, or cannot be reached.
    #[error(transparent)]
    Rank(#[from] RankFailure),
}

impl Error {
    /// Whether it may well not happen again: see [`super::Error::is_accident`].
    pub fn is_accident(&self) -> bool {
        match self {
            Error::Generate(error) => error.is_accident(),
            Error::Rank(failure) => failure.is_accident(),
            _ => false,
        }
    }
}

/// Samples and metrics of an evaluation, ready to be applied to a model.
#[derive(Debug)]
pub(super) struct Evaluation {
    settings: EvaluateStage,
    held_out: Vec<HeldOut>,
    /// Rows of multiple choice in place of samples.
    questions: Option<Questions>,
    scorer: Scorer,
    /// By the metric's name.
    classifiers: BTreeMap<String, Classifier>,
}

/// What the model made of one replica's share of the samples.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Measured {
    likelihoods: Vec<Likelihood>,
    generated: Vec<Generated>,
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
    /// Those that wait as long as this one goes on.
    pub(super) nodes: Option<&'a Nodes>,
}

impl Evaluation {
    /// Reads the samples that `settings` choose from `data`, a tokenize output, or its rows of
    /// multiple choice from the file `data`, and prepares its metrics, whose files are the inputs
    /// below `files` (`metrics` or `validate.metrics`).
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
        let classifiers = classifiers(&settings.metrics, &file)?;
        let (held_out, questions) = match &settings.choices {
            Some(set) => (Vec::new(), Some(Questions::read(data, set, settings.limit)?)),
            None => (held_out::read(data, settings)?, None),
        };
        Ok(Evaluation { settings: settings.clone(), held_out, questions, scorer, classifiers })
    }

    /// Number of samples.
    pub(super) fn len(&self) -> usize {
        self.questions.as_ref().map_or(self.held_out.len(), Questions::len)
    }

    /// What the model of `session` makes of its share of the samples: answers, likelihoods.
    pub(super) fn measure(
        &self,
        session: Session<'_>,
        around: Around<'_>,
    ) -> Result<Measured, Error> {
        let (mut likelihoods, mut generated) = (Vec::new(), Vec::new());
        if self.questions.is_some() || self.scorer.needs_likelihood() {
            likelihoods = self.likelihoods(session, around)?;
        }
        if self.questions.is_none() && self.scorer.needs_text() {
            generated = self.answers(session, around)?;
        }
        Ok(Measured { likelihoods, generated })
    }

    /// Every metric of what the replicas measured, in their order.
    pub(super) fn score(&self, shares: Vec<Measured>, around: Around<'_>) -> Evaluated {
        let pairs = shares.into_iter().map(|share| (share.likelihoods, share.generated));
        let (likelihoods, generated): (Vec<_>, Vec<_>) = pairs.unzip();
        let likelihoods = together(likelihoods);
        if let Some(questions) = &self.questions {
            return questions.evaluated(&self.settings, &likelihoods);
        }
        let pairs = self.asked().zip(together(generated));
        let mut samples: Vec<Sample> = pairs.map(|(asked, text)| sample(asked, text)).collect();
        let rows: Vec<Texts<'_>> = samples.iter().map(Texts::from).collect();
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
        let mut classify = |metric: &str, text: &str| {
            let classifier = self.classifiers.get(metric).ok_or("it was not opened")?;
            Ok(classifier.score(text)?)
        };
        let (hear, classify) = (&mut hear, &mut classify);
        let mut around = Surroundings { stop: around.stop, hear, classify, seed };
        let mut results = self.scorer.score(&rows, &likelihoods, &mut around);
        drop(rows);
        for (sample, scores) in samples.iter_mut().zip(std::mem::take(&mut results.rows)) {
            sample.scores = scores;
        }
        Evaluated { results, samples }
    }

    /// Likelihood of the expected answer of each sample of the share, or of its choices.
    fn likelihoods(
        &self,
        session: Session<'_>,
        around: Around<'_>,
    ) -> Result<Vec<Likelihood>, Error> {
        let (first, every) = session.replica().share();
        let context = session.replica().model().architecture().max_position_embeddings;
        let add_bos = self.settings.gen_kwargs.add_bos;
        let pairs: Vec<Pair> = match &self.questions {
            Some(questions) => questions.pairs(session, add_bos, context)?,
            None => Vec::new(),
        };
        let choices = pairs.iter().map(|(tokens, learned)| Scored { tokens, learned });
        let samples = self.held_out.iter();
        let samples =
            samples.map(|sample| Scored { tokens: &sample.tokens, learned: &sample.learned });
        let scored: Vec<Scored<'_>> = samples.chain(choices).skip(first).step_by(every).collect();
        let total = self.held_out.len() + pairs.len();
        let progress = |done| around.tell("scoring", done, (first, every), total);
        let sums = scoring::score(session.replica(), &scored, around.stop, progress)
            .map_err(|error| Error::Score(error.into()))?;
        if around.stop.load(Ordering::Relaxed) {
            return Err(Error::Stopped(format!(
                "{} of {} samples scored",
                count(sums.len() as u64),
                count(scored.len() as u64)
            )));
        }
        let likelihood = |sums: scoring::Sums| {
            let scoring::Sums { loss_sum, tokens, correct } = sums;
            Likelihood { loss_sum, tokens, correct }
        };
        Ok(sums.into_iter().map(likelihood).collect())
    }

    /// The samples that have a prompt.
    fn asked(&self) -> impl Iterator<Item = &HeldOut> {
        self.held_out.iter().filter(|sample| sample.prompt_tokens().is_some())
    }

    /// The prompts of all samples that have one; it is an error when none has.
    fn prompts(&self, session: Session<'_>, sink: &dyn Sink) -> Result<Vec<Vec<u32>>, Error> {
        let add_bos = self.settings.gen_kwargs.add_bos;
        session.check_bos(add_bos)?;
        let prompts = self.held_out.iter().filter_map(HeldOut::prompt_tokens);
        let prompts: Vec<_> = prompts.map(|tokens| session.begun(tokens, add_bos)).collect();
        let left_out = self.held_out.len() - prompts.len();
        match self.held_out.first() {
            Some(sample) if prompts.is_empty() => Err(Error::NoPrompt {
                task: sample.task.clone(),
                start: format!("{}{}", sample.prompt, sample.expected).chars().take(40).collect(),
            }),
            _ => {
                if left_out > 0 && session.replica().share().0 == 0 {
                    let text = format!(
                        "{} of {} samples are not asked for an answer: no token of their prompt is \
                         left beside the answer within model.encoder_seq_length",
                        count(left_out as u64),
                        count(self.held_out.len() as u64)
                    );
                    sink.emit(Event::Note { text });
                }
                Ok(prompts)
            }
        }
    }

    /// Generates an answer to every prompt of the share.
    fn answers(&self, session: Session<'_>, around: Around<'_>) -> Result<Vec<Generated>, Error> {
        let prompts = self.prompts(session, around.sink)?;
        let (share, mut done) = (session.replica().share(), 0);
        let mut listener = |update: Update<'_>| {
            if let Update::Done { .. } = update {
                done += 1;
                around.tell("generating", done, share, prompts.len());
            }
        };
        let settings = &self.settings.gen_kwargs;
        let generated = session.decode(&prompts, settings, around.stop, &mut listener);
        generated.map_err(stopped_or_failed)
    }
}

impl Around<'_> {
    /// Tells how far the samples are; of replicas that share them evenly, the first speaks for all.
    fn tell(self, task: &str, done: usize, (replica, replicas): (usize, usize), total: usize) {
        if let Some(nodes) = self.nodes {
            nodes.work_goes_on();
        }
        if replica == 0 {
            self.sink.emit(progress(task, total.min(done * replicas), total));
        }
    }
}

/// Why the file at `path` does not serve the metric that has it as its input `name`
/// (`metrics.N.lexicon`, `metrics.N.classifier`), if it does not.
pub(super) fn metric_refusal(metrics: &[Metric], name: &str, path: &Path) -> Option<Refusal> {
    let (number, _) = name.strip_prefix("metrics.")?.split_once('.')?;
    let metric = metrics.get(number.parse::<usize>().ok()?)?;
    let (reason, help) = match metric {
        Metric::Lexicon { .. } => {
            (with_causes(&Lexicon::read(path).err()?), "give a file like VADER's")
        }
        Metric::Classifier { label, .. } => {
            let error = Classifier::check(path, label.as_deref()).err()?;
            (error.to_string(), "give a Hugging Face folder of a classifier, and one of its labels")
        }
        _ => return None,
    };
    let what = format!("a file that metric `{}` can use: {reason}", metric.name());
    Some(Refusal { what, key: "metrics".to_owned(), help: help.to_owned() })
}

/// The classifiers of `metrics`, by the metrics' names.
fn classifiers(
    metrics: &[Metric],
    file: &dyn Fn(&str) -> Option<PathBuf>,
) -> Result<BTreeMap<String, Classifier>, Error> {
    let mut opened = BTreeMap::new();
    for (number, metric) in metrics.iter().enumerate() {
        let Metric::Classifier { name, label, .. } = metric else { continue };
        let folder = file(&format!("{number}.classifier"));
        let folder = folder.ok_or_else(|| metrics::Error::NoFile { metric: name.clone() })?;
        opened.insert(name.clone(), Classifier::open(&folder, label.as_deref())?);
    }
    Ok(opened)
}

fn sample(asked: &HeldOut, generated: Generated) -> Sample {
    let (task, expected) = (Some(asked.task.clone()), Some(asked.expected.clone()));
    Sample { task, expected, ..generate::sample(&asked.prompt, generated) }
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
