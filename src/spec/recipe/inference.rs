//! Settings of decoding as recipes write them: NeMo's two spellings and trlx's.

use crate::spec::generation::{Generation, PenaltyRule};
use schemars::JsonSchema;
use serde::Deserialize;

/// How text is generated (`gen_kwargs` of a stage).
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GenKwargs {
    /// Take the most likely token. Default: false.
    pub use_greedy: Option<bool>,
    /// The opposite of `use_greedy` (Hugging Face's and trlx's name).
    pub do_sample: Option<bool>,
    /// Divides the logits. Default: 1.
    #[schemars(range(min = 0))]
    pub temperature: Option<f64>,
    /// Keep the k most likely tokens; 0 keeps all. Default: 0.
    pub top_k: Option<usize>,
    /// Keep the most likely tokens whose probability adds up to this; 0 or 1 keeps all. Default: 0.9.
    #[schemars(range(min = 0, max = 1))]
    pub top_p: Option<f64>,
    /// Makes tokens that were seen less likely; 1 changes nothing. Default: 1.2.
    #[schemars(range(min = 0))]
    pub repetition_penalty: Option<f64>,
    /// Rule of the penalty. Default: hf.
    pub repetition_penalty_rule: Option<PenaltyRule>,
    /// Most new tokens. Default: 64.
    #[schemars(range(min = 1))]
    pub max_length: Option<usize>,
    /// The same by Hugging Face's and trlx's name.
    #[schemars(range(min = 1))]
    pub max_new_tokens: Option<usize>,
    /// Least number of new tokens. Default: 0.
    pub min_length: Option<usize>,
    /// Texts that end the output.
    pub end_strings: Option<Vec<String>>,
    /// The same by trlx's name.
    pub stop_sequences: Option<Vec<String>>,
    /// Start prompts with the beginning-of-sequence token. Default: as the samples that the model
    /// learned from.
    #[serde(rename = "add_BOS")]
    pub add_bos: Option<bool>,
    /// Give the log-probability of every new token. Default: false.
    pub compute_logprob: Option<bool>,
    /// Give the log-probabilities of all tokens at every new one. Default: false.
    pub all_probs: Option<bool>,
    /// Seed of sampling. Default: `model.seed`.
    pub seed: Option<u64>,
    /// Prompts decoded together. Default: 32.
    #[schemars(range(min = 1))]
    pub batch_size: Option<usize>,
}

impl GenKwargs {
    /// Whether the most likely token is taken.
    pub fn is_greedy(&self) -> bool {
        self.use_greedy.or(self.do_sample.map(|sample| !sample)).unwrap_or(false)
    }

    fn ends(&self) -> Option<&Vec<String>> {
        self.end_strings.as_ref().or(self.stop_sequences.as_ref())
    }

    /// The settings with defaults filled in: those of trlx's `SFTGPT`.
    pub fn filled(&self, seed: u64) -> Generation {
        Generation {
            use_greedy: self.is_greedy(),
            temperature: self.temperature.unwrap_or(1.0),
            top_k: self.top_k.unwrap_or(0),
            top_p: self.top_p.unwrap_or(0.9),
            repetition_penalty: self.repetition_penalty.unwrap_or(1.2),
            repetition_penalty_rule: self.repetition_penalty_rule.unwrap_or(PenaltyRule::Hf),
            min_length: self.min_length.unwrap_or(0),
            max_length: self.max_length.or(self.max_new_tokens).unwrap_or(64),
            end_strings: self.ends().cloned().unwrap_or_default(),
            add_bos: self.add_bos,
            compute_logprob: self.compute_logprob.unwrap_or(false),
            all_probs: self.all_probs.unwrap_or(false),
            seed: self.seed.unwrap_or(seed),
            batch_size: self.batch_size.unwrap_or(32),
        }
    }
}

/// The top-level `inference` section of NeMo's `megatron_gpt_inference.yaml`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Inference {
    /// Take the most likely token. Default: false.
    pub greedy: Option<bool>,
    /// Keep the k most likely tokens; 0 keeps all. Default: 0.
    pub top_k: Option<usize>,
    /// Keep the most likely tokens whose probability adds up to this. Default: 0.9.
    #[schemars(range(min = 0, max = 1))]
    pub top_p: Option<f64>,
    /// Divides the logits. Default: 1.
    #[schemars(range(min = 0))]
    pub temperature: Option<f64>,
    /// Start prompts with the beginning-of-sequence token. Default: true.
    #[serde(rename = "add_BOS")]
    pub add_bos: Option<bool>,
    /// Most new tokens. Default: 30.
    #[schemars(range(min = 1))]
    pub tokens_to_generate: Option<usize>,
    /// Give the log-probabilities of all tokens at every new one. Default: false.
    pub all_probs: Option<bool>,
    /// Makes tokens that were seen less likely. Default: 1, which changes nothing.
    #[schemars(range(min = 0))]
    pub repetition_penalty: Option<f64>,
    /// Least number of new tokens. Default: 0.
    pub min_tokens_to_generate: Option<usize>,
    /// Texts that end the output.
    pub end_strings: Option<Vec<String>>,
    /// Give the log-probability of every new token. Default: false.
    pub compute_logprob: Option<bool>,
    /// Hand an attention mask over.
    pub compute_attention_mask: Option<bool>,
}

impl Inference {
    /// The same in the words of a stage; the penalty follows NeMo's rule.
    pub fn gen_kwargs(&self) -> GenKwargs {
        GenKwargs {
            use_greedy: self.greedy,
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            // NeMo's own default.
            repetition_penalty: Some(self.repetition_penalty.unwrap_or(1.0)),
            repetition_penalty_rule: Some(PenaltyRule::Nemo),
            max_length: Some(self.tokens_to_generate.unwrap_or(30)),
            min_length: self.min_tokens_to_generate,
            end_strings: self.end_strings.clone(),
            add_bos: Some(self.add_bos.unwrap_or(true)),
            compute_logprob: self.compute_logprob,
            all_probs: self.all_probs,
            ..GenKwargs::default()
        }
    }
}
