//! What decoding needs of a model and of a tokenizer.

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

    /// Forgets what a row has read.
    fn release(&mut self, row: usize);

    /// The most tokens that a row can read, if there is a limit.
    fn context(&self) -> Option<usize>;
}

/// Tokens to text.
pub trait Vocabulary {
    /// The text that `tokens` add after the tokens `before`.
    fn text(&self, before: &[u32], tokens: &[u32]) -> Result<String, ModelError>;

    /// The token that `text` is, when it is exactly one.
    fn single_token(&self, text: &str) -> Option<u32>;
}
