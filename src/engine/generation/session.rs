//! A model and its tokenizer, opened together to turn prompts into text.

use super::batch::{self, Generated, Listener, Request};
use super::cached::Cached;
use super::growing::TOKENS_BEFORE;
use super::predictor::{ModelError, Vocabulary};
use super::sampling::{Rules, SettingsError};
use crate::data::tokenizer::{self, Tokenizer};
use crate::engine::replica::{RankFailure, Replica};
use crate::spec::architecture::Architecture;
use crate::spec::generation::Generation;
use std::sync::atomic::AtomicBool;

/// Why prompts could not be decoded.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The settings cannot be followed.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The tokenizer has no such token.
    #[error(
        "`add_BOS` is true, but the tokenizer has no beginning-of-sequence token: set it to false"
    )]
    NoBos,
    /// Tokenizer and model do not belong together.
    #[error("the tokenizer has {tokenizer} ids, the model {model}: they do not belong together")]
    OtherTokenizer {
        /// Ids of the tokenizer.
        tokenizer: usize,
        /// Ids of the model.
        model: usize,
    },
    /// A prompt cannot be tokenized.
    #[error(transparent)]
    Tokenizer(#[from] tokenizer::Error),
    /// The model failed.
    #[error("cannot prepare the model")]
    Model(#[source] ModelError),
    /// Decoding ended early.
    #[error(transparent)]
    Decode(#[from] batch::Error),
    /// A rank failed that does not lead, or cannot be reached.
    #[error(transparent)]
    Rank(#[from] RankFailure),
}

impl SessionError {
    /// Whether it may well not happen again: see [`RankFailure::is_accident`].
    pub fn is_accident(&self) -> bool {
        matches!(self, SessionError::Rank(failure) if failure.is_accident())
    }
}

/// A model with its tokenizer.
#[derive(Clone, Copy, Debug)]
pub struct Session<'a> {
    replica: Replica<'a>,
    tokenizer: &'a Tokenizer,
}

impl<'a> Session<'a> {
    /// Puts a model and a tokenizer together, which must have the same ids.
    pub fn new(
        replica: Replica<'a>,
        tokenizer: &'a Tokenizer,
    ) -> Result<Session<'a>, SessionError> {
        check_ids(tokenizer, replica.model().architecture())?;
        Ok(Session { replica, tokenizer })
    }

    /// The model.
    pub fn replica(&self) -> Replica<'a> {
        self.replica
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &'a Tokenizer {
        self.tokenizer
    }

    /// The tokens of a prompt, with the beginning-of-sequence token when `add_bos` says so, or when
    /// it says nothing and the model learned from samples with it. One that the prompt spells out
    /// stays, unless `add_bos` is false: chats of some models begin with it.
    pub fn encode(&self, prompt: &str, add_bos: Option<bool>) -> Result<Vec<u32>, SessionError> {
        self.begun_as_learned(&self.tokenizer.encode(prompt)?, add_bos)
    }

    /// The same for a prompt in which special tokens are spelled out, as chat templates write them.
    pub fn encode_marked(
        &self,
        prompt: &str,
        add_bos: Option<bool>,
    ) -> Result<Vec<u32>, SessionError> {
        self.begun_as_learned(&self.tokenizer.encode_marked(prompt, true)?, add_bos)
    }

    fn begun_as_learned(
        &self,
        tokens: &[u32],
        add_bos: Option<bool>,
    ) -> Result<Vec<u32>, SessionError> {
        self.check_bos(add_bos)?;
        Ok(self.begun(tokens, add_bos.or(self.tokenizer.add_bos().then_some(true))))
    }

    /// Refuses a beginning-of-sequence token that the tokenizer does not have.
    pub fn check_bos(&self, add_bos: Option<bool>) -> Result<(), SessionError> {
        match (add_bos, self.tokenizer.bos()) {
            (Some(true), None) => Err(SessionError::NoBos),
            _ => Ok(()),
        }
    }

    /// A prompt's tokens with the beginning-of-sequence token once at their start, or without it;
    /// as they are when `add_bos` says nothing.
    pub fn begun(&self, tokens: &[u32], add_bos: Option<bool>) -> Vec<u32> {
        let bos = self.tokenizer.bos();
        let rest = match tokens {
            [first, rest @ ..] if add_bos.is_some() && Some(*first) == bos => rest,
            all => all,
        };
        bos.filter(|_| add_bos == Some(true)).into_iter().chain(rest.iter().copied()).collect()
    }

    /// Decodes this replica's share of the prompts by `settings`; the results are in the prompts'
    /// order, and `listener` hears of prompts by their numbers among all.
    pub fn decode(
        &self,
        prompts: &[Vec<u32>],
        settings: &Generation,
        stop: &AtomicBool,
        listener: &mut Listener<'_>,
    ) -> Result<Vec<Generated>, SessionError> {
        let rules = Rules::new(settings, self.tokenizer.vocab_size(), self.tokenizer.eos())?;
        let share @ (first, every) = self.replica.share();
        let mine = prompts.iter().skip(first).step_by(every);
        let lengths: Vec<usize> = mine.map(|prompt| prompt.len() + settings.max_length).collect();
        let rows = settings.batch_size.min(lengths.len());
        let mut cached = Cached::new(self.replica, rows, &lengths).map_err(SessionError::Model)?;
        let vocabulary = Texts(self.tokenizer);
        let request = Request { prompts, rules: &rules, vocabulary: &vocabulary, stop, share };
        Ok(batch::decode(&mut cached, &request, listener)?)
    }
}

/// Refuses a tokenizer whose ids are not the model's.
pub fn check_ids(tokenizer: &Tokenizer, model: &Architecture) -> Result<(), SessionError> {
    let (ids, known) = (tokenizer.vocab_size(), model.vocab_size);
    if ids == known {
        Ok(())
    } else {
        Err(SessionError::OtherTokenizer { tokenizer: ids, model: known })
    }
}

/// A tokenizer's texts.
#[derive(Clone, Copy, Debug)]
pub struct Texts<'a>(pub &'a Tokenizer);

impl Vocabulary for Texts<'_> {
    fn text(&self, before: &[u32], tokens: &[u32]) -> Result<String, ModelError> {
        if before.is_empty() {
            return Ok(self.0.decode(tokens)?);
        }
        let before = &before[before.len().saturating_sub(TOKENS_BEFORE)..];
        let given = self.0.decode(before)?;
        let mut all = self.0.decode(&[before, tokens].concat())?;
        if all.starts_with(&given) {
            return Ok(all.split_off(given.len()));
        }
        // The prompt ends inside a character, which the new tokens complete.
        Ok(self.0.decode(tokens)?)
    }

    fn settles(&self, tokens: &[u32], text: &str) -> bool {
        self.0.is_whole(tokens, text)
    }

    fn single_token(&self, text: &str) -> Option<u32> {
        // A text that cannot be tokenized is no single token.
        let tokens = self.0.encode_continuation(text).ok()?;
        if let [token] = tokens.as_slice() { Some(*token) } else { None }
    }
}
