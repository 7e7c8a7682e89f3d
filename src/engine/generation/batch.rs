//! Prompts decoded together: a prompt joins when a row is free, grows, and leaves when it ends.
//!
//! What a prompt becomes depends on its own tokens, its number and the seed: no padding stands
//! between the rows, and draws are addressed by the prompt's number and the token's.

use super::endings;
use super::growing::Growing;
use super::predictor::{ModelError, NewTokens, Predictor, Vocabulary};
use super::sampling::{History, NoChoice, Rules};
use crate::base::bits;
use crate::base::seed::Stream;
use crate::spec::generation::StopReason;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::slice;
use std::sync::atomic::{AtomicBool, Ordering};

/// Why decoding ended early.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A prompt has no tokens.
    #[error(
        "prompt {} of the list has no tokens: give it a text, or begin it with the BOS token \
         (`add_BOS: true` in gen_kwargs, `--add-bos true`)", prompt + 1
    )]
    EmptyPrompt {
        /// Its number, from 0.
        prompt: usize,
    },
    /// A prompt does not fit.
    #[error(
        "prompt {} of the list has {tokens} tokens, more than the model's {context} positions \
         (`max_position_embeddings`): shorten it", prompt + 1
    )]
    LongPrompt {
        /// Its number, from 0.
        prompt: usize,
        /// Its tokens.
        tokens: usize,
        /// The model's positions.
        context: usize,
    },
    /// No token can be chosen.
    #[error("cannot choose new token {token} of prompt {prompt}")]
    NoChoice {
        /// The prompt's number, from 0.
        prompt: usize,
        /// The token's, from 0.
        token: usize,
        /// Why.
        source: NoChoice,
    },
    /// The model failed.
    #[error("the model's forward pass failed")]
    Model(#[source] ModelError),
    /// The tokens have no text.
    #[error("cannot decode the text of prompt {prompt}")]
    Text {
        /// The prompt's number, from 0.
        prompt: usize,
        /// Why.
        source: ModelError,
    },
    /// The stop flag was set.
    #[error("stopped with {done} of {total} prompts decoded")]
    Stopped {
        /// Prompts decoded.
        done: usize,
        /// All of them.
        total: usize,
    },
}

/// What was generated from one prompt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Generated {
    /// The new tokens, without the one that ended the text.
    pub tokens: Vec<u32>,
    /// The log-probability that the model itself gave to each, before temperature and the other
    /// rules; empty unless asked for.
    #[serde(with = "bits")]
    pub logprob: Vec<f64>,
    /// The same of the whole vocabulary at each; empty unless asked for.
    #[serde(with = "bits")]
    pub full_logprob: Vec<Vec<f64>>,
    /// Their text, up to the end string.
    pub text: String,
    /// Why it ended.
    pub stop_reason: StopReason,
}

/// News of a prompt while it is decoded.
#[derive(Clone, Copy, Debug)]
pub enum Update<'a> {
    /// Its text has grown.
    Text {
        /// The prompt's number, from 0.
        prompt: usize,
        /// The new piece; the pieces add up to the final text.
        piece: &'a str,
    },
    /// It is done.
    Done {
        /// The prompt's number, from 0.
        prompt: usize,
        /// What became of it.
        generated: &'a Generated,
    },
}

/// Who hears of updates.
pub type Listener<'a> = dyn FnMut(Update<'_>) + Send + 'a;

/// What to decode and how.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// The prompts' tokens.
    pub prompts: &'a [Vec<u32>],
    /// The rules.
    pub rules: &'a Rules,
    /// The tokenizer.
    pub vocabulary: &'a dyn Vocabulary,
    /// Set from outside to end early.
    pub stop: &'a AtomicBool,
    /// Which of the prompts: with `(r, n)` those numbered `r`, `r + n`, `r + 2n`, …, as one of `n`
    /// replicas that share them; `(0, 1)` for all.
    pub share: (usize, usize),
}

/// Decodes every prompt of the share; the results are in the prompts' order.
pub fn decode(
    predictor: &mut dyn Predictor,
    request: &Request<'_>,
    listener: &mut Listener<'_>,
) -> Result<Vec<Generated>, Error> {
    let context = predictor.context();
    check_prompts(request.prompts, context)?;
    let mut batch = Batch::new(request, context);
    loop {
        batch.fill();
        if batch.rows.iter().all(Option::is_none) {
            return Ok(batch.results.into_iter().flatten().collect());
        }
        if request.stop.load(Ordering::Relaxed) {
            let done = batch.results.iter().flatten().count();
            return Err(Error::Stopped { done, total: batch.total });
        }
        batch.step(predictor, listener)?;
    }
}

fn check_prompts(prompts: &[Vec<u32>], context: Option<usize>) -> Result<(), Error> {
    for (prompt, tokens) in prompts.iter().enumerate() {
        if tokens.is_empty() {
            return Err(Error::EmptyPrompt { prompt });
        }
        if let Some(context) = context.filter(|context| tokens.len() > *context) {
            return Err(Error::LongPrompt { prompt, tokens: tokens.len(), context });
        }
    }
    Ok(())
}

/// The rows that are being decoded and the prompts that wait.
struct Batch<'a> {
    request: &'a Request<'a>,
    draws: Stream,
    end_tokens: Vec<u32>,
    context: Option<usize>,
    waiting: VecDeque<usize>,
    rows: Vec<Option<Row>>,
    results: Vec<Option<Generated>>,
    /// Prompts of the share.
    total: usize,
}

/// One prompt on its way.
struct Row {
    prompt: usize,
    tokens: Vec<u32>,
    logprob: Vec<f64>,
    full_logprob: Vec<Vec<f64>>,
    text: Growing,
    /// Bytes of the text that the listener has.
    shown: usize,
}

/// What a forward pass gave for a row.
#[derive(Clone, Copy)]
enum Prediction<'a> {
    /// All logits.
    Logits(&'a [f32]),
    /// The token with the largest, if one can be chosen.
    Likeliest(Option<u32>),
}

/// A row with its number, a token longer, and whether its text ends with it.
type Grown = (usize, Row, Result<Option<StopReason>, Error>);

impl<'a> Batch<'a> {
    fn new(request: &'a Request<'a>, context: Option<usize>) -> Batch<'a> {
        let settings = request.rules.settings();
        let single = |text: &String| request.vocabulary.single_token(text);
        let (first, every) = request.share;
        let waiting: VecDeque<usize> = (first..request.prompts.len()).step_by(every).collect();
        let total = waiting.len();
        Batch {
            request,
            draws: Stream::new(settings.seed, "generation"),
            end_tokens: settings.end_strings.iter().filter_map(single).collect(),
            context,
            rows: (0..settings.batch_size.min(total)).map(|_| None).collect(),
            results: vec![None; request.prompts.len()],
            waiting,
            total,
        }
    }

    /// Gives free rows to waiting prompts.
    fn fill(&mut self) {
        for row in self.rows.iter_mut().filter(|row| row.is_none()) {
            let Some(prompt) = self.waiting.pop_front() else { return };
            *row = Some(Row {
                prompt,
                tokens: Vec::new(),
                logprob: Vec::new(),
                full_logprob: Vec::new(),
                text: Growing::default(),
                shown: 0,
            });
        }
    }

    /// One forward pass, and one more token for every row.
    fn step(
        &mut self,
        predictor: &mut dyn Predictor,
        listener: &mut Listener<'_>,
    ) -> Result<(), Error> {
        let grown = if self.request.rules.only_the_likeliest() {
            self.grow_greedily(predictor)?
        } else {
            self.grow_by_logits(predictor)?
        };
        // Whoever listens hears of the rows in their order.
        for (index, mut row, stop) in grown {
            let stop = stop?;
            row.show(stop.is_some(), &self.request.rules.settings().end_strings, listener);
            match stop {
                None => self.rows[index] = Some(row),
                Some(stop_reason) => {
                    predictor.release(index);
                    self.finish(row, stop_reason, listener);
                }
            }
        }
        Ok(())
    }

    /// What the model is to read for each row.
    fn unread(&self) -> Vec<NewTokens<'_>> {
        let mut unread = Vec::with_capacity(self.rows.len());
        for (row, held) in self.rows.iter().enumerate() {
            if let Some(held) = held {
                unread.push(NewTokens { row, tokens: held.unread(self.request.prompts) });
            }
        }
        unread
    }

    /// The rows that are being decoded, taken out, with their numbers.
    fn take(&mut self) -> Vec<(usize, Row)> {
        let rows = self.rows.iter_mut().enumerate();
        rows.filter_map(|(index, row)| Some((index, row.take()?))).collect()
    }

    /// Every row with the likeliest token added.
    fn grow_greedily(&mut self, predictor: &mut dyn Predictor) -> Result<Vec<Grown>, Error> {
        let rules = self.request.rules;
        let rows = self.rows.iter().flatten();
        let forbidden: Vec<_> = rows.map(|row| rules.forbidden(row.tokens.len())).collect();
        let tokens = predictor.extend_greedily(&self.unread(), rules.vocab_size(), &forbidden);
        let rows = self.take().into_iter().zip(tokens.map_err(Error::Model)?);
        let grow = |((index, mut row), token): ((usize, Row), Option<u32>)| {
            let stop = self.grow(&mut row, Prediction::Likeliest(token));
            (index, row, stop)
        };
        Ok(rows.map(grow).collect())
    }

    /// Every row with a token added that its logits gave, the rows at the same time: draws are
    /// addressed, so that their order does not matter.
    fn grow_by_logits(&mut self, predictor: &mut dyn Predictor) -> Result<Vec<Grown>, Error> {
        let logits = predictor.extend(&self.unread()).map_err(Error::Model)?;
        let rows = self.take().into_par_iter().zip(logits.values.par_chunks_exact(logits.width));
        let grow = |((index, mut row), logits): ((usize, Row), &[f32])| {
            let stop = self.grow(&mut row, Prediction::Logits(logits));
            (index, row, stop)
        };
        Ok(rows.map(grow).collect())
    }

    /// Adds the next token to `row` and tells whether its text ends with it.
    fn grow(&self, row: &mut Row, prediction: Prediction<'_>) -> Result<Option<StopReason>, Error> {
        let Request { prompts, rules, vocabulary, .. } = self.request;
        let (prompt, count) = (row.prompt, row.tokens.len());
        let token = match prediction {
            Prediction::Likeliest(token) => token.ok_or(NoChoice),
            Prediction::Logits(logits) => {
                let history = History { prompt: &prompts[prompt], generated: &row.tokens };
                let uniform = self.draws.uniform((prompt as u64) << 32 | count as u64);
                rules.choose(logits, &history, uniform)
            }
        };
        let token = token.map_err(|source| Error::NoChoice { prompt, token: count, source })?;
        if rules.ends(token) {
            return Ok(Some(StopReason::EndOfSequence));
        }
        if self.end_tokens.contains(&token) {
            return Ok(Some(StopReason::EndString));
        }
        row.tokens.push(token);
        if let Prediction::Logits(logits) = prediction {
            row.note(token, rules, logits);
        }
        let grown = row.text.grow(*vocabulary, &prompts[prompt], &row.tokens);
        grown.map_err(|source| Error::Text { prompt, source })?;
        if let Some(end) = endings::end_string(row.text.text(), &rules.settings().end_strings) {
            row.text.truncate(end);
            return Ok(Some(StopReason::EndString));
        }
        if row.tokens.len() >= rules.settings().max_length {
            return Ok(Some(StopReason::MaxLength));
        }
        // The last token would have to be read at the position after the last one.
        let total = prompts[prompt].len() + row.tokens.len();
        Ok(self.context.filter(|context| total > *context).map(|_| StopReason::ContextFull))
    }

    fn finish(&mut self, row: Row, stop_reason: StopReason, listener: &mut Listener<'_>) {
        let Row { prompt, tokens, logprob, full_logprob, text, .. } = row;
        let text = text.into_text();
        let generated = Generated { tokens, logprob, full_logprob, text, stop_reason };
        listener(Update::Done { prompt, generated: &generated });
        self.results[prompt] = Some(generated);
    }
}

impl Row {
    /// The tokens that the model has not read: the prompt, later the newest token.
    fn unread<'a>(&'a self, prompts: &'a [Vec<u32>]) -> &'a [u32] {
        self.tokens.last().map_or(&prompts[self.prompt], slice::from_ref)
    }

    /// Keeps what the model made of the newest token, where that is asked for.
    fn note(&mut self, token: u32, rules: &Rules, logits: &[f32]) {
        let settings = rules.settings();
        if !settings.compute_logprob && !settings.all_probs {
            return;
        }
        let all = rules.log_probabilities(logits);
        if settings.compute_logprob {
            self.logprob.extend(all.get(token as usize));
        }
        if settings.all_probs {
            self.full_logprob.push(all);
        }
    }

    /// Hands the listener what is new and will stay.
    fn show(&mut self, is_done: bool, end_strings: &[String], listener: &mut Listener<'_>) {
        let text = self.text.text();
        let end = if is_done { text.len() } else { endings::settled(text, end_strings) };
        if let Some(piece) = text.get(self.shown..end).filter(|piece| !piece.is_empty()) {
            listener(Update::Text { prompt: self.prompt, piece });
            self.shown = end;
        }
    }
}
