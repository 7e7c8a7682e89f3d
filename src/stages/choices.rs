//! Rows of multiple choice: prompt and choice as tokens, and what comes of their likelihoods.

use super::Refusal;
use super::evaluation::{Error, Evaluated};
use crate::data::choices::{self, ChoiceRow};
use crate::data::rows;
use crate::engine::generation::Session;
use crate::metrics::Likelihood;
use crate::metrics::choices::{Judged, score};
use crate::spec::choices::ChoiceSet;
use crate::spec::event::Sample;
use crate::spec::generation::StopReason;
use crate::spec::job::EvaluateStage;
use crate::spec::metric::MetricName;
use std::collections::BTreeMap;
use std::path::Path;

/// The rows of a judged set.
#[derive(Debug)]
pub(super) struct Questions {
    rows: Vec<ChoiceRow>,
    delimiter: String,
}

/// Why the rows at `path` cannot be asked, if the first of them show that they cannot.
pub(super) fn refusal(set: &ChoiceSet, path: &Path) -> Option<Refusal> {
    let reason = match choices::look(path, set).err()? {
        choices::Error::Rows(rows::Error::Bad { count, first, .. }) => match count {
            1 => first.concat(),
            _ => format!("{}; and {} more", first.first()?, count - 1),
        },
        error => error.to_string(),
    };
    Some(Refusal {
        what: format!("rows that `choices` fits: {reason}"),
        key: "choices".to_owned(),
        help: "say by the fields that the rows have what is asked (`prompt`), what there is to \
               choose (`choices`, `labels`) and which one is right (`answer`)"
            .to_owned(),
    })
}

/// Tokens of a prompt with one choice; the choice's are marked.
pub(super) type Pair = (Vec<u32>, Vec<bool>);

impl Questions {
    /// Reads the rows of the file at `path`.
    pub(super) fn read(
        path: &Path,
        set: &ChoiceSet,
        limit: Option<usize>,
    ) -> Result<Questions, Error> {
        let rows = choices::read(path, set, limit);
        let rows = rows.map_err(|error| Error::Choices(Box::new(error)))?;
        Ok(Questions { rows, delimiter: set.delimiter.clone() })
    }

    /// Number of rows.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Every row's choices after its prompt, row by row.
    pub(super) fn pairs(
        &self,
        session: Session<'_>,
        add_bos: Option<bool>,
        context: usize,
    ) -> Result<Vec<Pair>, Error> {
        session.check_bos(add_bos)?;
        let mut pairs = Vec::new();
        for row in &self.rows {
            for choice in &row.choices {
                let answer = format!("{}{choice}", self.delimiter);
                pairs.push(pair(session, (&row.prompt, &answer), add_bos, context)?);
            }
        }
        Ok(pairs)
    }

    /// Accuracies and samples, given the likelihood of each pair.
    pub(super) fn evaluated(&self, stage: &EvaluateStage, pairs: &[Likelihood]) -> Evaluated {
        let mut sums = pairs.iter().map(|pair| -pair.loss_sum);
        let likelihoods: Vec<Vec<f64>> =
            self.rows.iter().map(|row| sums.by_ref().take(row.choices.len()).collect()).collect();
        let judged = self.rows.iter().zip(&likelihoods).map(|(row, log_likelihoods)| Judged {
            choices: &row.choices,
            log_likelihoods,
            answer: row.answer,
        });
        let judged: Vec<Judged<'_>> = judged.collect();
        let mut results = score(&stage.metrics, &judged, stage.gen_kwargs.seed);
        let scores = std::mem::take(&mut results.rows);
        let parts = self.rows.iter().zip(&judged).zip(scores);
        let samples = parts.map(|((row, judged), scores)| sample(row, judged, scores)).collect();
        Evaluated { results, samples }
    }
}

/// A prompt with what follows it, as lm-evaluation-harness cuts them: white space at the prompt's end
/// belongs to what follows, both are tokenized together, and of what is too long the end is kept. An
/// empty prompt is the beginning-of-sequence token, or that of the end.
fn pair(
    session: Session<'_>,
    (prompt, answer): (&str, &str),
    add_bos: Option<bool>,
    context: usize,
) -> Result<Pair, Error> {
    let stem = prompt.trim_end();
    let mut tokens = session.encode(&format!("{prompt}{answer}"), add_bos)?;
    let mut before = session.encode(stem, add_bos)?.len();
    if before == 0 {
        let tokenizer = session.tokenizer();
        tokens.splice(0..0, tokenizer.bos().or(tokenizer.eos()));
        before = 1;
    }
    let answered = tokens.len().saturating_sub(before);
    // One more than is read: nothing follows the last token.
    tokens.drain(..tokens.len().saturating_sub(context + 1));
    let first = tokens.len().saturating_sub(answered);
    let learned = (0..tokens.len()).map(|at| at >= first).collect();
    Ok((tokens, learned))
}

/// The row as people see it: the right choice, and the model's.
fn sample(row: &ChoiceRow, judged: &Judged<'_>, scores: BTreeMap<String, f64>) -> Sample {
    let chosen = judged.chosen(MetricName::Acc).unwrap_or_default();
    Sample {
        task: None,
        prompt: row.prompt.clone(),
        expected: Some(row.choices[row.answer].clone()),
        output: row.choices[chosen].clone(),
        stop_reason: StopReason::Chosen,
        tokens: 0,
        token_ids: Vec::new(),
        logprob: judged.log_likelihoods.to_vec(),
        full_logprob: Vec::new(),
        scores,
    }
}
