//! Trains a byte-level BPE on texts: GPT-2's scheme with a vocabulary of one's own.

use super::Error;
use super::huggingface::END_OF_TEXT;
use crate::base::atomic_file;
use crate::data::rows;
use crate::data::template::Template;
use rows::Row;
use std::path::{Path, PathBuf};
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, Tokenizer};

/// What to train on and how far.
#[derive(Clone, Debug)]
pub struct TrainRequest {
    /// Text files, or JSONL files.
    pub files: Vec<PathBuf>,
    /// What is taken from them.
    pub text: TrainText,
    /// Number of ids: the end-of-text token, 256 bytes, and the merges.
    pub vocab_size: usize,
    /// A pair that occurs less often is not merged.
    pub min_frequency: u64,
}

/// Which text is taken from a file.
#[derive(Clone, Debug)]
pub enum TrainText {
    /// Every line of a text file.
    Lines,
    /// These fields of every row of a JSONL file, each a text of its own.
    Fields(Vec<String>),
    /// These templates over every row of a JSONL file, each a text of its own: what the words of
    /// the templates cost is then learned too.
    Templates(Vec<String>),
}

/// Smallest vocabulary: the end-of-text token and the bytes.
const SMALLEST: usize = 257;

/// Trains a tokenizer and writes it to `output`, a `tokenizer.json`; returns its number of ids,
/// which is below the one asked for when the texts hold too few pairs.
///
/// The same texts give the same file: pairs are merged by count, then by id.
pub fn train(request: &TrainRequest, output: &Path) -> Result<usize, Error> {
    if request.vocab_size < SMALLEST {
        let size = request.vocab_size;
        return Err(Error::Train(format!("a vocabulary of {size} is below {SMALLEST}")));
    }
    let mut texts = Vec::new();
    for file in &request.files {
        append_texts(file, &request.text, &mut texts)?;
    }
    if texts.iter().all(String::is_empty) {
        return Err(Error::Train("there is no text to learn from".to_owned()));
    }
    let mut tokenizer = Tokenizer::new(BPE::default());
    let byte_level = ByteLevel::new(false, false, true);
    tokenizer.with_pre_tokenizer(Some(byte_level));
    tokenizer.with_decoder(Some(byte_level));
    let trainer = BpeTrainer::builder()
        .vocab_size(request.vocab_size)
        .min_frequency(request.min_frequency)
        .show_progress(false)
        .special_tokens(vec![AddedToken::from(END_OF_TEXT, true)])
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .build();
    let mut trainer = TrainerWrapper::from(trainer);
    let fail = |error: tokenizers::Error| Error::Train(error.to_string());
    tokenizer.train(&mut trainer, texts.into_iter()).map_err(fail)?;
    let text = tokenizer.to_string(true).map_err(fail)?;
    atomic_file::write(output, format!("{text}\n").as_bytes())
        .map_err(|source| Error::File { path: output.to_path_buf(), source })?;
    Ok(tokenizer.get_vocab_size(true))
}

/// Makes texts of a row.
type MakeTexts<'a> = dyn Fn(&Row) -> Result<Vec<String>, String> + Sync + 'a;

fn append_texts(file: &Path, text: &TrainText, texts: &mut Vec<String>) -> Result<(), Error> {
    let fail = |error: rows::Error| Error::Train(error.to_string());
    let make: Box<MakeTexts<'_>> = match text {
        TrainText::Lines => {
            rows::for_each_line(file, |line| texts.push(line.to_owned())).map_err(fail)?;
            return Ok(());
        }
        TrainText::Fields(fields) => Box::new(move |row| {
            fields
                .iter()
                .map(|field| Ok(rows::text_field(&row.fields, field)?.to_owned()))
                .collect()
        }),
        TrainText::Templates(sources) => {
            let parse = |source: &String| Template::parse("template", source);
            let templates: Result<Vec<_>, _> = sources.iter().map(parse).collect();
            let templates = templates.map_err(|error| Error::Train(error.to_string()))?;
            Box::new(move |row| {
                templates.iter().map(|template| template.render(&row.fields)).collect()
            })
        }
    };
    let take = |made: Vec<Vec<String>>| {
        texts.extend(made.into_iter().flatten());
        true
    };
    rows::for_each_row(file, &*make, take).map_err(fail)
}
