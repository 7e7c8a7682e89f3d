//! What decoding needs of a model and of a tokenizer.

use crate::kernels::argmax;

/// Whatever made a model or a tokenizer fail.
pub type ModelError = Box<dyn std::error::Error + Send + Sync>;

/// New tokens of one row.
#[derive(Clone, Copy, Debug)]
pub struct NewTokens<'a> {
    /// The row whose cache they extend.
    pub row: usize,
    /// The tokens: a whole prompt at first, then one at a time.
    pub tokens: &'a [u32],
}

/// Logits of several rows.
#[derive(Clone, Debug)]
pub struct Logits {
    /// `[rows, width]`, one row after the other.
    pub values: Vec<f32>,
    /// The padded vocabulary.
    pub width: usize,
}

/// A model that remembers what each row has read.
pub trait Predictor {
    /// Reads new tokens of several rows and gives the logits after the last token of each.
    fn extend(&mut self, rows: &[NewTokens<'_>]) -> Result<Logits, ModelError>;

    /// [`extend`](Predictor::extend) where only the allowed token with the largest logit is asked
    /// for, the lowest among equals; none where a logit is not a number, or all are minus infinity.
    fn extend_greedily(
        &mut self,
        rows: &[NewTokens<'_>],
        vocab_size: usize,
        forbidden: &[Option<u32>],
    ) -> Result<Vec<Option<u32>>, ModelError> {
        let logits = self.extend(rows)?;
        let logits = logits.values.chunks_exact(logits.width).zip(forbidden);
        let choice = |(logits, forbidden): (&[f32], &Option<u32>)| {
            argmax::of_row(&logits[..vocab_size.min(logits.len())], *forbidden)
        };
        Ok(logits.map(choice).collect())
    }

    /// Forgets what a row has read.
    fn release(&mut self, row: usize);

    /// The most tokens that a row can read, if there is a limit.
    fn context(&self) -> Option<usize>;
}

/// Tokens to text.
pub trait Vocabulary: Sync {
    /// The text that `tokens` add after the tokens `before`.
    fn text(&self, before: &[u32], tokens: &[u32]) -> Result<String, ModelError>;

    /// Whether `text`, which `tokens` gave, stays whatever comes next, and what comes next adds the
    /// same behind them as behind all tokens so far. Where in doubt it does not: texts are then
    /// decoded as a whole.
    fn settles(&self, _tokens: &[u32], _text: &str) -> bool {
        false
    }

    /// The token that `text` is, when it is exactly one.
    fn single_token(&self, text: &str) -> Option<u32>;
}
