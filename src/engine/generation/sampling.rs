//! Which token comes next: decoding rules as pure functions of logits.
//!
//! The order is that of NeMo's `text_generation_utils.py`: forbid the end token while the text is
//! shorter than `min_length`, drop the embedding's padding rows, then either the largest logit
//! (greedy sets every other rule aside) or temperature, repetition penalty, top-k, top-p, draw.

use crate::kernels::argmax;
use crate::spec::generation::{Generation, PenaltyRule};

/// Settings that cannot be followed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SettingsError {
    /// The temperature is zero, negative or not a number.
    #[error(
        "`temperature` is {0}, but logits are divided by it: set a number above 0, or `use_greedy: true`"
    )]
    Temperature(f64),
    /// The penalty is zero, negative or not a number.
    #[error("`repetition_penalty` is {0}: set a number above 0 (1 changes nothing)")]
    Penalty(f64),
    /// The share is not a share.
    #[error("`top_p` is {0}: set a number from 0 to 1 (0 and 1 keep every token)")]
    TopP(f64),
    /// The least length is above the largest.
    #[error("`min_length` is {min}, more than `max_length`, which is {max}")]
    Lengths {
        /// `min_length`.
        min: usize,
        /// `max_length`.
        max: usize,
    },
    /// No text would be generated.
    #[error("`max_length` is 0: set the number of tokens to generate")]
    NoTokens,
    /// No prompt would be decoded.
    #[error("`batch_size` is 0: set the number of prompts to decode together")]
    BatchSize,
}

/// The logits hold something that is not a number, or nothing that may be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the model's logits leave no token to choose (not a number, or all minus infinity)")]
pub struct NoChoice;

/// The tokens before the one that is chosen.
#[derive(Clone, Copy, Debug)]
pub struct History<'a> {
    /// The prompt's tokens.
    pub prompt: &'a [u32],
    /// The tokens generated so far.
    pub generated: &'a [u32],
}

/// Decoding settings that were checked, with what they need to know of the vocabulary.
#[derive(Clone, Debug)]
pub struct Rules {
    settings: Generation,
    vocab_size: usize,
    end_of_sequence: Option<u32>,
}

impl Rules {
    /// Checks `settings`; ids from `vocab_size` on are padding and are never chosen.
    pub fn new(
        settings: &Generation,
        vocab_size: usize,
        end_of_sequence: Option<u32>,
    ) -> Result<Rules, SettingsError> {
        let above_zero = |value: f64| value > 0.0 && value.is_finite();
        if !settings.use_greedy && !above_zero(settings.temperature) {
            return Err(SettingsError::Temperature(settings.temperature));
        }
        if !above_zero(settings.repetition_penalty) {
            return Err(SettingsError::Penalty(settings.repetition_penalty));
        }
        if !(0.0..=1.0).contains(&settings.top_p) {
            return Err(SettingsError::TopP(settings.top_p));
        }
        if settings.min_length > settings.max_length {
            let (min, max) = (settings.min_length, settings.max_length);
            return Err(SettingsError::Lengths { min, max });
        }
        if settings.max_length == 0 {
            return Err(SettingsError::NoTokens);
        }
        if settings.batch_size == 0 {
            return Err(SettingsError::BatchSize);
        }
        Ok(Rules { settings: settings.clone(), vocab_size, end_of_sequence })
    }

    /// The settings.
    pub fn settings(&self) -> &Generation {
        &self.settings
    }

    /// Whether `token` ends the text.
    pub fn ends(&self, token: u32) -> bool {
        self.end_of_sequence == Some(token)
    }

    /// The next token, given the model's logits (`[padded vocabulary]`) and a number in [0, 1).
    pub fn choose(&self, logits: &[f32], history: &History, uniform: f64) -> Result<u32, NoChoice> {
        let allowed = &logits[..self.vocab_size.min(logits.len())];
        let forbidden = self.forbidden(history.generated.len());
        if self.settings.use_greedy {
            return argmax::of_row(allowed, forbidden).ok_or(NoChoice);
        }
        draw(&self.probabilities_of(allowed, forbidden, history), uniform).ok_or(NoChoice)
    }

    /// The distribution that a sampled token is drawn from, by id.
    pub fn probabilities(&self, logits: &[f32], history: &History) -> Vec<f64> {
        let allowed = &logits[..self.vocab_size.min(logits.len())];
        self.probabilities_of(allowed, self.forbidden(history.generated.len()), history)
    }

    /// The model's own log-probabilities, by id: no rule applied, padding left out.
    pub fn log_probabilities(&self, logits: &[f32]) -> Vec<f64> {
        let allowed = &logits[..self.vocab_size.min(logits.len())];
        let logits: Vec<f64> = allowed.iter().map(|logit| f64::from(*logit)).collect();
        let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = logits.iter().map(|logit| (logit - largest).exp()).sum();
        logits.into_iter().map(|logit| logit - largest - sum.ln()).collect()
    }

    /// Ids from here on are padding.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// Whether nothing of the logits is asked for but the id of the largest.
    pub fn only_the_likeliest(&self) -> bool {
        let Generation { use_greedy, compute_logprob, all_probs, .. } = self.settings;
        use_greedy && !compute_logprob && !all_probs
    }

    /// The token that may not come next where so many were generated: the one that ends the text, as
    /// long as that is too short.
    pub fn forbidden(&self, generated: usize) -> Option<u32> {
        self.end_of_sequence.filter(|_| generated < self.settings.min_length)
    }

    fn probabilities_of(
        &self,
        allowed: &[f32],
        forbidden: Option<u32>,
        history: &History,
    ) -> Vec<f64> {
        let mut logits: Vec<f64> = allowed.iter().map(|logit| f64::from(*logit)).collect();
        if let Some(logit) = forbidden.and_then(|token| logits.get_mut(token as usize)) {
            *logit = f64::NEG_INFINITY;
        }
        for logit in &mut logits {
            *logit /= self.settings.temperature;
        }
        penalize(&mut logits, history, &self.settings);
        keep_top_k(&mut logits, self.settings.top_k);
        keep_top_p(&mut logits, self.settings.top_p);
        softmax(&logits)
    }
}

/// Makes the tokens of the history less likely, each once however often it occurred.
///
/// `hf` (Keskar et al. 2019, CTRL, as Hugging Face has it): over prompt and output, positive logits
/// are divided and negative ones multiplied. `nemo`: over output and prompt without its first token,
/// every logit is divided, and nothing is penalised before the first generated token.
pub fn penalize(logits: &mut [f64], history: &History, settings: &Generation) {
    let penalty = settings.repetition_penalty;
    let prompt = match settings.repetition_penalty_rule {
        PenaltyRule::Hf => history.prompt,
        PenaltyRule::Nemo if history.generated.is_empty() => return,
        PenaltyRule::Nemo => history.prompt.get(1..).unwrap_or_default(),
    };
    let mut seen: Vec<u32> = prompt.iter().chain(history.generated).copied().collect();
    seen.sort_unstable();
    seen.dedup();
    for token in seen {
        let Some(logit) = logits.get_mut(token as usize) else { continue };
        let multiply = settings.repetition_penalty_rule == PenaltyRule::Hf && *logit < 0.0;
        *logit = if multiply { *logit * penalty } else { *logit / penalty };
    }
}

/// Drops the logits below the `k`-th largest; equals of the `k`-th stay. 0 keeps all.
pub fn keep_top_k(logits: &mut [f64], k: usize) {
    if k == 0 || k >= logits.len() {
        return;
    }
    let mut sorted = logits.to_vec();
    let (_, kth, _) = sorted.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a));
    let kth = *kth;
    for logit in logits.iter_mut().filter(|logit| **logit < kth) {
        *logit = f64::NEG_INFINITY;
    }
}

/// Drops tokens before which, from the most likely down, more than `p` has been reached; the first
/// token past the threshold stays. 0 and 1 keep all; among equals the lower id comes first.
pub fn keep_top_p(logits: &mut [f64], p: f64) {
    if p <= 0.0 || p >= 1.0 {
        return;
    }
    let probabilities = softmax(logits);
    // Numbers in the order of `total_cmp`, the largest first, and then by id.
    let falling = |probability: &f64| {
        let bits = probability.to_bits().cast_signed();
        !(bits ^ ((bits >> 63).cast_unsigned() >> 1).cast_signed())
    };
    let mut order: Vec<_> = probabilities.iter().map(falling).zip(0_u32..).collect();
    let (mut rest, mut reached) = (order.as_mut_slice(), 0.0);
    // A few tokens mostly have it all: only as many are put in order as it takes.
    let mut count = SORTED_FIRST;
    while !rest.is_empty() && (reached <= p || reached.is_nan()) {
        if count < rest.len() {
            rest.select_nth_unstable(count);
        }
        let (next, others) = rest.split_at_mut(count.min(rest.len()));
        next.sort_unstable();
        for (_, id) in next {
            if reached > p {
                logits[*id as usize] = f64::NEG_INFINITY;
            }
            reached += probabilities[*id as usize];
        }
        (rest, count) = (others, count * 8);
    }
    for (_, id) in rest {
        logits[*id as usize] = f64::NEG_INFINITY;
    }
}

/// Tokens that are put in order first.
const SORTED_FIRST: usize = 256;

/// `exp(logit) / sum(exp(logit))`, with the largest logit taken off first.
pub fn softmax(logits: &[f64]) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let exponentials: Vec<f64> = logits.iter().map(|logit| (logit - largest).exp()).collect();
    let sum: f64 = exponentials.iter().sum();
    exponentials.into_iter().map(|exponential| exponential / sum).collect()
}

/// The first id at which the running sum of `probabilities` passes `uniform`; none when they are not
/// numbers.
pub fn draw(probabilities: &[f64], uniform: f64) -> Option<u32> {
    let mut sum = 0.0;
    let mut last = None;
    for (id, probability) in probabilities.iter().enumerate() {
        sum += probability;
        if *probability > 0.0 {
            last = Some(id as u32);
            if sum > uniform {
                return last;
            }
        }
    }
    // Rounding may leave the whole sum a little under `uniform`.
    last.filter(|_| sum.is_finite())
}
