//! What a model gave to expected tokens, as sums.

use crate::base::bits;
use serde::{Deserialize, Serialize};

/// What a model gave to the expected tokens of one sample (teacher forced).
///
/// Loss, perplexity and token accuracy are made of sums of these and not of means, so that every
/// token weighs the same however long its sample is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Likelihood {
    /// Sum of the tokens' negative log-likelihoods, in nats.
    #[serde(with = "bits")]
    pub loss_sum: f64,
    /// Number of tokens.
    pub tokens: u64,
    /// Tokens to which the model gave the largest logit.
    pub correct: u64,
}
