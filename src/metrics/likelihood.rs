//! Loss, perplexity and token accuracy: sums over expected tokens that the model was shown.

use std::ops::AddAssign;

/// What a model gave to a number of expected tokens (teacher forced), as sums.
///
/// Sums and not means are added up, so that every token weighs the same however the samples are cut
/// into batches.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Likelihood {
    /// Sum of the tokens' negative log-likelihoods, in nats.
    pub loss_sum: f64,
    /// Number of tokens.
    pub tokens: u64,
    /// Tokens to which the model gave the largest logit.
    pub correct: u64,
}

impl Likelihood {
    /// Mean negative log-likelihood per token, in nats; none without tokens.
    pub fn loss(&self) -> Option<f64> {
        (self.tokens > 0).then(|| self.loss_sum / self.tokens as f64)
    }

    /// `exp(loss)`; none without tokens.
    pub fn perplexity(&self) -> Option<f64> {
        self.loss().map(f64::exp)
    }

    /// Share of tokens that were the model's first choice; none without tokens.
    pub fn token_accuracy(&self) -> Option<f64> {
        (self.tokens > 0).then(|| self.correct as f64 / self.tokens as f64)
    }
}

impl AddAssign for Likelihood {
    fn add_assign(&mut self, other: Likelihood) {
        self.loss_sum += other.loss_sum;
        self.tokens += other.tokens;
        self.correct += other.correct;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_weighs_the_same() {
        let mut all = Likelihood { loss_sum: 1.0, tokens: 1, correct: 1 };
        all += Likelihood { loss_sum: 5.0, tokens: 2, correct: 0 };
        assert_eq!(all.loss(), Some(2.0));
        assert_eq!(all.perplexity(), Some(2f64.exp()));
        assert_eq!(all.token_accuracy(), Some(1.0 / 3.0));
        assert_eq!(Likelihood::default().loss(), None);
    }
}
