//! A rendered conversation as token ids, its answers marked.

use super::template::chat::Rendered;
use super::tokenizer::{Error, Tokenizer};

/// A conversation's ids, not yet with the task's bos and eos.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Spoken {
    pub(super) ids: Vec<u32>,
    /// Whether each id belongs to an answer.
    pub(super) learned: Vec<bool>,
    /// Number of ids before the last answer; all of them when there is none.
    pub(super) prompt_ids: usize,
    /// The text before the last answer.
    pub(super) prompt: String,
    /// The last answer, as the row has it.
    pub(super) expected: String,
}

/// Tokenizes what stands before, in and between the answers, each apart: so the ids before an
/// answer are those from which generation starts.
pub(super) fn encode(rendered: &Rendered, tokenizer: &Tokenizer) -> Result<Spoken, Error> {
    let mut spoken = Spoken { expected: rendered.last_answer.clone(), ..Spoken::default() };
    let text = &rendered.text;
    let mut done = 0;
    let append = |spoken: &mut Spoken, part: &str, learned: bool| -> Result<(), Error> {
        let ids = tokenizer.encode_marked(part, spoken.ids.is_empty())?;
        spoken.learned.extend(ids.iter().map(|_| learned));
        spoken.ids.extend(ids);
        Ok(())
    };
    for answer in &rendered.answers {
        append(&mut spoken, &text[done..answer.start], false)?;
        text[..answer.start].clone_into(&mut spoken.prompt);
        spoken.prompt_ids = spoken.ids.len();
        append(&mut spoken, &text[answer.clone()], true)?;
        done = answer.end;
    }
    append(&mut spoken, &text[done..], false)?;
    if rendered.answers.is_empty() {
        spoken.prompt_ids = spoken.ids.len();
    }
    Ok(spoken)
}
