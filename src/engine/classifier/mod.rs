//! Text classifiers from Hugging Face folders (`DistilBERT`, BERT, `RoBERTa`): a score for a text.

mod config;
mod encoder;

use crate::checkpoint::foreign::hugging_face;
use crate::data::tokenizer::{self, FramedTokenizer};
use config::{Config, Problem};
use encoder::Encoder;
use std::fs;
use std::path::{Path, PathBuf};

/// Why a classifier cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder holds none.
    #[error("`{}` holds no classifier that can be used: {reason}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Its tokenizer.
    #[error(transparent)]
    Tokenizer(#[from] tokenizer::Error),
    /// The computation.
    #[error("the classifier's forward pass failed")]
    Tensor(#[from] candle_core::Error),
}

/// A classifier and the label whose probability is the score.
#[derive(Debug)]
pub struct Classifier {
    tokenizer: FramedTokenizer,
    encoder: Encoder,
    problem: Problem,
    label: usize,
}

impl Classifier {
    /// Opens a Hugging Face folder: `config.json`, weights as safetensors or PyTorch file, and
    /// `tokenizer.json` or `vocab.txt`. `label` is one of its labels' names; none for the last one.
    pub fn open(path: &Path, label: Option<&str>) -> Result<Classifier, Error> {
        let wrong = |reason: String| Error::Folder { path: path.to_owned(), reason };
        let (config, label) = config(path, label).map_err(wrong)?;
        let tensors = hugging_face::tensors(path).map_err(wrong)?;
        let encoder = Encoder::new(&config, &tensors).map_err(wrong)?;
        let tokenizer = FramedTokenizer::open(path, config.longest())?;
        Ok(Classifier { tokenizer, encoder, problem: config.problem, label })
    }

    /// Looks for what makes a folder unusable in everything but the weights.
    pub fn check(path: &Path, label: Option<&str>) -> Result<(), Error> {
        let wrong = |reason: String| Error::Folder { path: path.to_owned(), reason };
        let (config, _) = config(path, label).map_err(wrong)?;
        FramedTokenizer::open(path, config.longest())?;
        Ok(())
    }

    /// The logits of a text, one for each label; what is longer than the model reads is cut.
    pub fn logits(&self, text: &str) -> Result<Vec<f32>, Error> {
        Ok(self.encoder.logits(&self.tokenizer.encode(text)?)?)
    }

    /// The probability of the label.
    pub fn score(&self, text: &str) -> Result<f64, Error> {
        let logits: Vec<f64> = self.logits(text)?.into_iter().map(f64::from).collect();
        Ok(probability(&logits, self.label, self.problem))
    }
}

/// What `config.json` says, and the number of the label; else what is wrong.
fn config(path: &Path, label: Option<&str>) -> Result<(Config, usize), String> {
    let text = fs::read_to_string(path.join("config.json"));
    let text = text.map_err(|error| format!("config.json: {error}"))?;
    let config = Config::read(&text).map_err(|reason| format!("config.json: {reason}"))?;
    let label = config.label(label)?;
    Ok((config, label))
}

fn probability(logits: &[f64], label: usize, problem: Problem) -> f64 {
    let own = logits[label];
    match problem {
        Problem::EachAlone => 1.0 / (1.0 + (-own).exp()),
        Problem::OneOf => 1.0 / logits.iter().map(|other| (other - own).exp()).sum::<f64>(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_are_a_softmax_or_sigmoids() {
        let near = |one: f64, other: f64| assert!((one - other).abs() < 1e-12, "{one} {other}");
        near(probability(&[0.0, 3.0_f64.ln()], 1, Problem::OneOf), 0.75);
        near(probability(&[0.0, 3.0_f64.ln()], 1, Problem::EachAlone), 0.75);
        near(probability(&[5.0, 0.0], 1, Problem::EachAlone), 0.5);
    }
}
