//! Text from a model: decoding rules, prompts decoded together, what a growing text shows.

pub mod batch;
pub mod endings;
pub mod predictor;
pub mod sampling;

pub use batch::{Error, Generated, Listener, Request, Update, decode};
pub use predictor::{Logits, ModelError, NewTokens, Predictor, Vocabulary};
pub use sampling::{History, Rules, SettingsError};
