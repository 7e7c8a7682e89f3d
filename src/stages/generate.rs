//! The generate stage, and text from a checkpoint for the command of the same name.

pub use super::conversation::Conversation;
pub use super::devices::Devices;
use super::evaluation::{lines, progress};
use super::nodes::Nodes;
use super::{Folders, Outcome, Refusal, convert};
use crate::base::atomic_file;
use crate::base::error_chain::with_causes;
use crate::checkpoint::format::Format;
use crate::checkpoint::native;
use crate::checkpoint::opened::Opened;
use crate::data::tokenizer::{self, Tokenizer};
pub use crate::engine::generation::Update;
use crate::engine::generation::{Generated, Listener, Session, SessionError, batch, session};
use crate::engine::replica::Replica;
use crate::engine::team::{self, Team};
use crate::spec::event::{Event, Sample, Sink};
use crate::spec::generation::Generation;
use crate::spec::job::{GenerateJob, TokenizerKind};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

/// Samples that are sent as events, for people to see.
const SHOWN_SAMPLES: usize = 20;

/// Why text could not be generated.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] native::Error),
    /// The model.
    #[error(transparent)]
    Model(#[from] team::Error),
    /// The tokenizer.
    #[error(transparent)]
    Tokenizer(#[from] tokenizer::Error),
    /// No tokenizer lies beside the model.
    #[error(
        "no `tokenizer` folder lies beside the model in `{}`: give the stage an input `data` (a \
         tokenize stage), or generate from a trained model", path.display()
    )]
    NoTokenizer {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The tokenizer in another program's checkpoint is of a kind that is not read.
    #[error("the tokenizer in the checkpoint cannot be used: {reason}")]
    UnreadTokenizer {
        /// Why.
        reason: String,
    },
    /// The tokenizer in another program's checkpoint cannot be opened.
    #[error("the tokenizer in the checkpoint cannot be used")]
    Carried(#[source] Box<convert::Error>),
    /// There is no template for turns.
    #[error(
        "no chat template goes along with the model: train it on a task with a `chat_template`, set \
         `model.tokenizer.chat_template` in its recipe, put chat_template.jinja beside its \
         tokenizer, or give --prompt"
    )]
    NoChatTemplate,
    /// The template cannot be used.
    #[error("the chat template fails: {0}")]
    ChatTemplate(String),
    /// There is nothing to do.
    #[error("there are no prompts: set `prompts` of the stage to a list of texts or to a file")]
    NoPrompts,
    /// A file of prompts cannot be read.
    #[error("cannot read prompts from `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line holds no prompt.
    #[error(
        "`{}` line {line} holds no prompt: a line is a JSON object with the key `prompt`",
        path.display()
    )]
    Line {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Why.
        source: serde_json::Error,
    },
    /// Decoding.
    #[error("cannot generate")]
    Generate(#[from] SessionError),
    /// The output.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Error {
    /// Whether the model cannot be cut into the ranks that were asked for.
    pub fn is_of_layout(&self) -> bool {
        matches!(self, Error::Model(team::Error::Cut { .. }))
    }
}

/// Writes `generations.jsonl` (a [`Sample`] a line, in the prompts' order) into the output folder. Of
/// several nodes each calls this, and node 0 writes.
pub fn run(
    job: &GenerateJob,
    folders: &Folders,
    (sink, stop): (&dyn Sink, &AtomicBool),
    nodes: Option<&Arc<Nodes>>,
) -> Result<Outcome, super::Error> {
    let tokenizer = tokenizer(job.model.tokenizer, folders)?;
    let devices = Devices { trainer: job.trainer, backend: folders.backend };
    let team = super::team(folders.input("model")?, devices, nodes).map_err(Error::from)?;
    let speaker = Speaker::of(team, tokenizer)?;
    let prompts = match folders.inputs.get("prompts") {
        Some(path) => read_prompts(path)?,
        None => job.stage.prompts.clone(),
    };
    // The replicas that are led here speak for all.
    let (mut done, each) = (0, job.trainer.degrees.data / speaker.team.led_here().max(1));
    let mut listener = |update: Update<'_>| {
        if let Update::Done { .. } = update {
            done += each;
            if let Some(nodes) = nodes {
                nodes.work_goes_on();
            }
            sink.emit(progress("generating", done.min(prompts.len()), prompts.len()));
        }
    };
    let samples = speaker.generate(&prompts, &job.stage.gen_kwargs, stop, &mut listener)?;
    if nodes.is_some_and(|nodes| !nodes.leads()) {
        return Ok(Outcome::default());
    }
    for sample in samples.iter().take(SHOWN_SAMPLES) {
        sink.emit(Event::Sample(sample.clone()));
    }
    let path = folders.output.join("generations.jsonl");
    let written = atomic_file::write(&path, lines(&samples).as_bytes());
    written.map_err(|source| Error::Write { path, source })?;
    let tokens: usize = samples.iter().map(|sample| sample.tokens).sum();
    let facts = [("prompts", samples.len()), ("tokens", tokens)];
    Ok(Outcome { facts: facts.map(|(name, value)| (name.to_owned(), value as f64)).into() })
}

/// The tokens of prompts, made with a session of each replica's leader.
pub(super) type Encode<'a> = dyn Fn(Session<'_>) -> Result<Vec<Vec<u32>>, SessionError> + Sync + 'a;

/// The tokenizer of a stage that reads text: the recipe's where the job says its kind, else the one
/// that goes along with the model.
pub(super) fn tokenizer(
    kind: Option<TokenizerKind>,
    folders: &Folders,
) -> Result<Tokenizer, super::Error> {
    let model = folders.input("model")?;
    let found = match kind {
        Some(kind) => Tokenizer::load(kind, &folders.inputs).map_err(Error::from),
        None => {
            beside(model, folders.inputs.get("data").map(PathBuf::as_path)).map(|(found, _)| found)
        }
    };
    Ok(found?)
}

/// The folder `tokenizer` in the checkpoint `model` or beside it, else that of `data`, a tokenize
/// or shard output, else what another program's checkpoint carries; whether it is that.
fn beside(model: &Path, data: Option<&Path>) -> Result<(Tokenizer, bool), Error> {
    let places = [Some(model), model.parent(), data];
    let folders = places.into_iter().flatten().map(|place| place.join("tokenizer"));
    let found = folders.into_iter().find(|folder| folder.is_dir());
    if let Some(folder) = found {
        return Ok((Tokenizer::open(&folder)?, false));
    }
    let none = || Error::NoTokenizer { path: model.to_owned() };
    let opened = Opened::open(model, None)?;
    let carried = convert::carried(&opened, model);
    let carried = carried.map_err(|reason| Error::UnreadTokenizer { reason })?;
    let tokenizer = convert::tokenizer(&carried.ok_or_else(none)?);
    Ok((tokenizer.map_err(|error| Error::Carried(Box::new(error)))?, true))
}

/// A checkpoint with its tokenizer, ready to continue prompts.
#[derive(Debug)]
pub struct Speaker {
    team: Team,
    pub(super) tokenizer: Tokenizer,
}

impl Speaker {
    /// Opens the checkpoint at `model`: a stage's output folder, or the checkpoint folder in it.
    ///
    /// The tokenizer is the folder `tokenizer` in it or beside it, else that of `data`, a tokenize
    /// or shard output.
    pub fn open(model: &Path, devices: Devices, data: Option<&Path>) -> Result<Speaker, Error> {
        let (tokenizer, is_its_own) = beside(model, data)?;
        let mut opened = Opened::open(model, None)?.whole()?;
        // Hugging Face's tokenizers may have fewer ids than their models have rows.
        if opened.may_be_padded || (is_its_own && opened.format == Format::HuggingFace) {
            opened = opened.with_vocabulary(tokenizer.vocab_size());
        }
        Speaker::of(super::team_of(&opened, devices)?, tokenizer)
    }

    fn of(team: Team, tokenizer: Tokenizer) -> Result<Speaker, Error> {
        // Said here, before prompts are typed.
        session::check_ids(&tokenizer, team.architecture())?;
        Ok(Speaker { team, tokenizer })
    }

    /// Continues every prompt; the samples are in the prompts' order.
    ///
    /// `listener` hears of every piece of text as it comes ([`Update::Text`]) and of every prompt
    /// that is done ([`Update::Done`]).
    pub fn generate(
        &self,
        prompts: &[String],
        settings: &Generation,
        stop: &AtomicBool,
        listener: &mut Listener<'_>,
    ) -> Result<Vec<Sample>, super::Error> {
        if prompts.is_empty() {
            return Err(Error::NoPrompts.into());
        }
        let encode = |session: Session<'_>| {
            prompts.iter().map(|prompt| session.encode(prompt, settings.add_bos)).collect()
        };
        let generated = self.decode(&encode, settings, stop, listener)?;
        let pairs = prompts.iter().zip(generated);
        Ok(pairs.map(|(prompt, generated)| sample(prompt, generated)).collect())
    }

    /// Continues the prompts that `encode` makes, shared by the replicas; in the prompts' order, and
    /// given on node 0 only.
    pub(super) fn decode(
        &self,
        encode: &Encode<'_>,
        settings: &Generation,
        stop: &AtomicBool,
        listener: &mut Listener<'_>,
    ) -> Result<Vec<Generated>, super::Error> {
        let listener = Mutex::new(listener);
        let work = |replica: Replica<'_>| {
            let session = Session::new(replica, &self.tokenizer)?;
            let mut hear = |update: Update<'_>| {
                (listener.lock().unwrap_or_else(PoisonError::into_inner))(update);
            };
            // Who is stopped says so and fails nobody: all nodes come to the end of the stage.
            match session.decode(&encode(session)?, settings, stop, &mut hear) {
                Err(SessionError::Decode(batch::Error::Stopped { done, total })) => {
                    Ok(Err(format!("{done} of {total} prompts continued")))
                }
                generated => generated.map(Ok),
            }
        };
        let given = self.team.lead_all(work).map_err(Error::Generate)?.unwrap_or_default();
        let given: Result<Vec<Vec<Generated>>, String> = given.into_iter().collect();
        Ok(team::together(given.map_err(super::Error::Stopped)?))
    }
}

/// Why the file at `path` gives no prompts, if it gives none.
pub(super) fn refusal(path: &Path) -> Option<Refusal> {
    let reason = match read_prompts(path) {
        Ok(prompts) if prompts.is_empty() => format!("`{}` is empty", path.display()),
        Ok(_) => return None,
        Err(error) => with_causes(&error),
    };
    Some(Refusal {
        what: format!("prompts: {reason}"),
        key: "prompts_file".to_owned(),
        help: "write a JSON object a line, such as {\"prompt\": \"Once upon a time\"}".to_owned(),
    })
}

/// The prompts of a file with a JSON object a line, each with the key `prompt`.
pub fn read_prompts(path: &Path) -> Result<Vec<String>, Error> {
    #[derive(Deserialize)]
    struct Line {
        prompt: String,
    }
    let text = fs::read_to_string(path);
    let text = text.map_err(|source| Error::Read { path: path.to_owned(), source })?;
    let parse = |(index, line): (usize, &str)| {
        let at = |source| Error::Line { path: path.to_owned(), line: index + 1, source };
        serde_json::from_str(line).map(|line: Line| line.prompt).map_err(at)
    };
    text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()).map(parse).collect()
}

/// What was generated from `prompt`, before anything is expected or scored.
pub(super) fn sample(prompt: &str, generated: Generated) -> Sample {
    Sample {
        task: None,
        prompt: prompt.to_owned(),
        expected: None,
        output: generated.text,
        stop_reason: generated.stop_reason,
        tokens: generated.tokens.len(),
        token_ids: generated.tokens,
        logprob: generated.logprob,
        full_logprob: generated.full_logprob,
        scores: BTreeMap::new(),
    }
}
