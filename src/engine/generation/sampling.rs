//! Which token comes next: decoding rules as pure functions of logits.
//!
//! The order is that of NeMo's `text_generation_utils.py`: forbid the end token while the text is
//! shorter than `min_length`, drop the embedding's padding rows, then either the largest logit
//! (greedy sets every other rule aside) or temperature, repetition penalty, top-k, top-p, draw.

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
        let forbidden = self.forbidden(history);
        if self.settings.use_greedy {
            return argmax(allowed, forbidden).ok_or(NoChoice);
        }
        draw(&self.probabilities_of(allowed, forbidden, history), uniform).ok_or(NoChoice)
    }

    /// The distribution that a sampled token is drawn from, by id.
    pub fn probabilities(&self, logits: &[f32], history: &History) -> Vec<f64> {
        let allowed = &logits[..self.vocab_size.min(logits.len())];
        self.probabilities_of(allowed, self.forbidden(history), history)
    }

    /// The model's own log-probabilities, by id: no rule applied, padding left out.
    pub fn log_probabilities(&self, logits: &[f32]) -> Vec<f64> {
        let allowed = &logits[..self.vocab_size.min(logits.len())];
        let logits: Vec<f64> = allowed.iter().map(|logit| f64::from(*logit)).collect();
        let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = logits.iter().map(|logit| (logit - largest).exp()).sum();
        logits.into_iter().map(|logit| logit - largest - sum.ln()).collect()
    }

    fn forbidden(&self, history: &History) -> Option<u32> {
        let short = history.generated.len() < self.settings.min_length;
        self.end_of_sequence.filter(|_| short)
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

/// The id of the largest logit, the lowest among equals; none when no logit is above minus infinity
/// or any is not a number.
fn argmax(logits: &[f32], forbidden: Option<u32>) -> Option<u32> {
    let mut best = None;
    let mut largest = f32::NEG_INFINITY;
    for (id, logit) in logits.iter().enumerate() {
        if logit.is_nan() {
            return None;
        }
        if *logit > largest && forbidden != Some(id as u32) {
            (best, largest) = (Some(id as u32), *logit);
        }
    }
    best
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
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|a, b| probabilities[*b].total_cmp(&probabilities[*a]));
    let mut reached = 0.0;
    for id in order {
        if reached > p {
            logits[id] = f64::NEG_INFINITY;
        }
        reached += probabilities[id];
    }
}

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
