//! Samples of a row: ids, which of them are learned, and which split they go to.

use super::conversation::{self, Spoken};
use super::nemo_template::{self, Budget, NemoTemplate};
use super::rows::{Fields, Row, text_field};
use super::template::chat::{self, ChatTemplate};
use super::template::{self, Template, missing_field};
use super::tokenizer::Tokenizer;
use crate::base::canonical_json;
use crate::spec::job::{Format, RowSource, Split, SplitRule, Task};
use serde_json::Value;

/// What makes a source of rows unusable, whatever is in its rows.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A template does not parse.
    #[error("task `{task}`: {source}")]
    Template {
        /// The task.
        task: String,
        /// The cause.
        source: template::Error,
    },
    /// A NeMo template cannot be used.
    #[error("task `{task}`: {source}")]
    Nemo {
        /// The task.
        task: String,
        /// The cause.
        source: nemo_template::Error,
    },
    /// A chat template cannot be used.
    #[error("task `{task}`: {source}")]
    Chat {
        /// The task.
        task: String,
        /// The cause.
        source: chat::Error,
    },
    /// The tokenizer brings no chat template.
    #[error(
        "task `{task}` takes the tokenizer's chat template, but the tokenizer has none: give the \
         folder that holds tokenizer.json and tokenizer_config.json or chat_template.jinja as \
         model.tokenizer, or write the template in the recipe"
    )]
    NoChatTemplate {
        /// The task.
        task: String,
    },
    /// The tokenizer's files cannot be used.
    #[error(transparent)]
    Tokenizer(#[from] super::tokenizer::Error),
    /// The tokenizer has no such token.
    #[error("task `{task}` sets {setting}, but the tokenizer has no such token: set it to false")]
    NoToken {
        /// The task.
        task: String,
        /// `add_bos` or `add_eos`.
        setting: &'static str,
    },
    /// There is no room for anything.
    #[error("samples of {0} tokens are too short to learn from: raise model.encoder_seq_length")]
    NoRoom(usize),
}

/// A tokenized sample.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Where it goes.
    pub split: Split,
    /// Index of its task.
    pub task: usize,
    /// bos, prompt, answer, eos.
    pub ids: Vec<u32>,
    /// Whether each id is learned as a label.
    pub learned: Vec<bool>,
    /// Number of ids before the answer.
    pub prompt_ids: usize,
    /// The prompt's text; empty for plain text.
    pub prompt: String,
    /// The answer's text.
    pub expected: String,
    /// Whether it was too long and lost something.
    pub cut: bool,
}

/// Makes samples of rows.
#[derive(Debug)]
pub struct SampleMaker<'a> {
    tokenizer: &'a Tokenizer,
    split: &'a SplitRule,
    tasks: Vec<TaskMaker<'a>>,
    max_length: usize,
}

#[derive(Debug)]
struct TaskMaker<'a> {
    task: &'a Task,
    texts: Texts<'a>,
    bos: Option<u32>,
    eos: Option<u32>,
}

#[derive(Debug)]
enum Texts<'a> {
    Text(&'a str),
    Templates { prompt: Box<Template>, answer: Box<Template> },
    Nemo { template: NemoTemplate, truncate_left: bool, tokens_to_generate: usize },
    Chat { template: Box<ChatTemplate>, messages: &'a str },
}

impl<'a> SampleMaker<'a> {
    /// Prepares the tasks of a source; a sample has at most `max_length` ids.
    pub fn new(
        source: &'a RowSource,
        tokenizer: &'a Tokenizer,
        max_length: usize,
    ) -> Result<SampleMaker<'a>, Error> {
        if max_length < 2 {
            return Err(Error::NoRoom(max_length));
        }
        let tasks = source.tasks.iter().map(|task| TaskMaker::new(task, tokenizer));
        let tasks = tasks.collect::<Result<_, _>>()?;
        Ok(SampleMaker { tokenizer, split: &source.split, tasks, max_length })
    }

    /// The samples of a row, in the order of the tasks; else what is wrong with it.
    ///
    /// A sample in which nothing is learned (an empty answer without eos) is given too, so that the
    /// caller can count it: see [`Sample::teaches`].
    pub fn samples(&self, row: &Row) -> Result<Vec<Sample>, String> {
        let split = split_of(self.split, &row.fields)?;
        let whole = canonical_json::to_string(&Value::Object(row.fields.clone()));
        let mut samples = Vec::new();
        for (index, task) in self.tasks.iter().enumerate() {
            if task.takes(&whole) {
                let sample = task.sample(row, self.tokenizer, self.max_length)?;
                samples.push(Sample { split, task: index, ..sample });
            }
        }
        Ok(samples)
    }
}

impl Sample {
    /// Whether there is an id that is learned: the first one never is, for nothing predicts it.
    pub fn teaches(&self) -> bool {
        self.learned.iter().skip(1).any(|learned| *learned)
    }
}

impl<'a> TaskMaker<'a> {
    fn new(task: &'a Task, tokenizer: &Tokenizer) -> Result<TaskMaker<'a>, Error> {
        let name = || task.name.clone();
        let parse = |what: &str, source: &str| match Template::parse(what, source) {
            Ok(template) => Ok(Box::new(template)),
            Err(source) => Err(Error::Template { task: name(), source }),
        };
        let texts = match &task.format {
            Format::Text { field } => Texts::Text(field),
            Format::Templates { prompt, answer } => Texts::Templates {
                prompt: parse("prompt", prompt)?,
                answer: parse("answer", answer)?,
            },
            Format::Nemo {
                prompt_template,
                label_key,
                truncation_field,
                truncate_left,
                tokens_to_generate,
            } => Texts::Nemo {
                template: NemoTemplate::parse(prompt_template, label_key, truncation_field)
                    .map_err(|source| Error::Nemo { task: name(), source })?,
                truncate_left: *truncate_left,
                tokens_to_generate: *tokens_to_generate,
            },
            Format::Chat { template, messages, date } => {
                let own =
                    template.clone().map_or_else(|| tokenizer.chat_template(), |own| Ok(Some(own)));
                let source = own?.ok_or_else(|| Error::NoChatTemplate { task: name() })?;
                let parsed =
                    ChatTemplate::parse(&source, &tokenizer.special_texts(), date.as_deref());
                let parsed = parsed.map_err(|source| Error::Chat { task: name(), source })?;
                Texts::Chat { template: Box::new(parsed), messages }
            }
        };
        let token = |wanted: bool, id: Option<u32>, setting| match (wanted, id) {
            (true, None) => Err(Error::NoToken { task: name(), setting }),
            (wanted, id) => Ok(id.filter(|_| wanted)),
        };
        let bos = token(task.add_bos, tokenizer.bos(), "add_bos")?;
        let eos = token(task.add_eos, tokenizer.eos(), "add_eos")?;
        Ok(TaskMaker { task, texts, bos, eos })
    }

    /// Whether the row with this canonical text gives a sample of this task.
    fn takes(&self, row: &str) -> bool {
        self.task.share >= 1.0 || unit_hash("share", &[&self.task.name, row]) < self.task.share
    }

    /// The row's sample; split and task are filled in by the caller.
    fn sample(
        &self,
        row: &Row,
        tokenizer: &Tokenizer,
        max_length: usize,
    ) -> Result<Sample, String> {
        let fail = |error: super::tokenizer::Error| error.to_string();
        let (line, row) = (row.text, &row.fields);
        let draft = match &self.texts {
            Texts::Text(field) => {
                let text = text_field(row, field)?;
                let answer = tokenizer.encode(text).map_err(fail)?;
                Draft { answer, expected: text.to_owned(), ..Draft::default() }
            }
            Texts::Templates { prompt, answer } => {
                let (prompt, expected) = (prompt.render(row)?, answer.render(row)?);
                let context = tokenizer.encode(&prompt).map_err(fail)?;
                // Apart from the prompt, so that generation starts from the same ids.
                let answer = if context.is_empty() {
                    tokenizer.encode(&expected).map_err(fail)?
                } else {
                    tokenizer.encode_continuation(&expected).map_err(fail)?
                };
                Draft { context, answer, prompt, expected, cut: false }
            }
            Texts::Nemo { template, truncate_left, tokens_to_generate } => {
                let added = usize::from(self.bos.is_some()) + usize::from(self.eos.is_some());
                let budget = Budget {
                    max_length,
                    tokens_to_generate: *tokens_to_generate,
                    added,
                    truncate_left: *truncate_left,
                };
                let parts = template.apply(row, tokenizer, budget)?;
                let expected = template.label(row)?;
                let nemo_template::Parts { context, answer, prompt, cut } = parts;
                Draft { context, answer, prompt, expected, cut }
            }
            Texts::Chat { template, messages } => {
                let spoken = conversation::encode(&template.render(line, messages)?, tokenizer);
                return Ok(self.finish_chat(spoken.map_err(fail)?, max_length));
            }
        };
        Ok(self.finish(draft, max_length))
    }

    /// Adds bos and eos, cuts what is still too long, and marks what is learned.
    ///
    /// NeMo's and plain texts are cut on the right. Of a templated sample the prompt is cut on its
    /// left, since the words before the answer say what is asked; then the answer on its right.
    /// eos goes with the cut: the text did not end there.
    fn finish(&self, draft: Draft, max_length: usize) -> Sample {
        let Draft { mut context, answer, prompt, expected, mut cut } = draft;
        let added = usize::from(self.bos.is_some()) + usize::from(self.eos.is_some());
        let over = (context.len() + answer.len() + added).saturating_sub(max_length);
        if matches!(self.texts, Texts::Templates { .. }) {
            context.drain(..over.min(context.len()));
        }
        let mut ids = Vec::with_capacity(context.len() + answer.len() + added);
        ids.extend(self.bos);
        ids.extend(context);
        let prompt_ids = ids.len().min(max_length);
        ids.extend(answer);
        ids.extend(self.eos);
        cut |= over > 0;
        ids.truncate(max_length);
        let first_learned = if self.task.answer_only_loss { prompt_ids } else { 0 };
        let learned = (0..ids.len()).map(|at| at >= first_learned).collect();
        // Split and task stand for themselves until the caller knows them.
        Sample { split: Split::Train, task: 0, ids, learned, prompt_ids, prompt, expected, cut }
    }

    /// Adds bos and eos to a conversation and cuts it on its right, as all chat trainers do.
    fn finish_chat(&self, spoken: Spoken, max_length: usize) -> Sample {
        let Spoken { mut ids, learned: mut answers, mut prompt_ids, prompt, expected } = spoken;
        if let Some(bos) = self.bos {
            ids.insert(0, bos);
            answers.insert(0, false);
            prompt_ids += 1;
        }
        ids.extend(self.eos);
        answers.extend(self.eos.map(|_| true));
        let cut = ids.len() > max_length;
        ids.truncate(max_length);
        answers.truncate(max_length);
        prompt_ids = prompt_ids.min(max_length);
        let all = !self.task.answer_only_loss;
        let learned = answers.into_iter().map(|answer| all || answer).collect();
        Sample { split: Split::Train, task: 0, ids, learned, prompt_ids, prompt, expected, cut }
    }
}

/// Ids and texts of a row before bos, eos and cutting.
#[derive(Default)]
struct Draft {
    context: Vec<u32>,
    answer: Vec<u32>,
    prompt: String,
    expected: String,
    cut: bool,
}

/// Where a row goes.
fn split_of(rule: &SplitRule, row: &Fields) -> Result<Split, String> {
    let (field, validation, test) = match rule {
        SplitRule::All(split) => return Ok(*split),
        SplitRule::ByHash { field, validation, test } => (field, *validation, *test),
    };
    let value = row.get(field).ok_or_else(|| missing_field(field, row))?;
    let at = unit_hash("split", &[&canonical_json::to_string(value)]);
    Ok(if at < validation {
        Split::Validation
    } else if at < validation + test {
        Split::Test
    } else {
        Split::Train
    })
}

/// A number in [0, 1) that depends on `purpose` and `parts` alone and is uniform over them.
fn unit_hash(purpose: &str, parts: &[&str]) -> f64 {
    let mut hasher = blake3::Hasher::new();
    for part in [purpose].iter().chain(parts) {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    let mut first = [0; 8];
    first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    (u64::from_le_bytes(first) >> 11) as f64 / (1u64 << 53) as f64
}
