//! Text from a model: decoding rules, prompts decoded together, what a growing text shows.

pub mod batch;
pub mod cached;
pub mod endings;
pub mod growing;
pub mod predictor;
pub mod sampling;
pub mod session;

pub use batch::{Error, Generated, Listener, Request, Update, decode};
pub use cached::Cached;
pub use growing::Growing;
pub use predictor::{Logits, ModelError, NewTokens, Predictor, Vocabulary};
pub use sampling::{History, Rules, SettingsError};
pub use session::{Session, SessionError, Texts};
