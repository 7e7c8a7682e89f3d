//! Prompts decoded together, over a model whose next token is a rule of arithmetic.

use super::sampling::{greedy, sampled};
use sft_run::engine::generation::{
    Error, Generated, Logits, ModelError, NewTokens, Predictor, Request, Rules, Update, Vocabulary,
    decode,
};
use sft_run::spec::generation::{Generation, StopReason};
use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

const WIDTH: usize = 32;
/// The token that ends a text.
const END: u32 = 31;

/// The next token's logits are a hash of all that the row has read.
#[derive(Default)]
struct Hashing {
    read: BTreeMap<usize, Vec<u32>>,
    passes: Vec<usize>,
    context: Option<usize>,
}

impl Predictor for Hashing {
    fn extend(&mut self, rows: &[NewTokens<'_>]) -> Result<Logits, ModelError> {
        self.passes.push(rows.len());
        let mut values = Vec::new();
        for row in rows {
            let read = self.read.entry(row.row).or_default();
            read.extend(row.tokens);
            let bytes: Vec<u8> = read.iter().flat_map(|token| token.to_le_bytes()).collect();
            let hash = sft_run::base::digest::Digest::of_bytes(&bytes).to_string().into_bytes();
            values.extend((0..WIDTH).map(|id| f32::from(hash[id]) / 40.0));
        }
        Ok(Logits { values, width: WIDTH })
    }

    fn release(&mut self, row: usize) {
        self.read.remove(&row);
    }

    fn context(&self) -> Option<usize> {
        self.context
    }
}

/// Token n is the letter n after `a`; `#` is one token, `b#` is two.
struct Letters;

impl Vocabulary for Letters {
    fn text(&self, _before: &[u32], tokens: &[u32]) -> Result<String, ModelError> {
        Ok(tokens.iter().map(|token| char::from(b'a' + *token as u8)).collect())
    }

    fn single_token(&self, text: &str) -> Option<u32> {
        let byte = *text.as_bytes().first()?;
        (text.len() == 1).then(|| u32::from(byte - b'a'))
    }
}

fn prompts() -> Vec<Vec<u32>> {
    (0..23u32).map(|number| (0..=number % 7).map(|at| (number * 5 + at) % 30).collect()).collect()
}

struct Run {
    results: Vec<Generated>,
    streamed: BTreeMap<usize, String>,
    passes: Vec<usize>,
}

fn run_with(settings: &Generation, prompts: &[Vec<u32>], context: Option<usize>) -> Run {
    let rules = Rules::new(settings, WIDTH, Some(END)).expect("legal settings");
    let stop = AtomicBool::new(false);
    let request =
        Request { prompts, rules: &rules, vocabulary: &Letters, stop: &stop, share: (0, 1) };
    let mut model = Hashing { context, ..Hashing::default() };
    let mut streamed: BTreeMap<usize, String> = BTreeMap::new();
    let results = decode(&mut model, &request, &mut |update| {
        if let Update::Text { prompt, piece } = update {
            streamed.entry(prompt).or_default().push_str(piece);
        }
    });
    Run { results: results.expect("decodes"), streamed, passes: model.passes }
}

#[test]
fn the_batch_does_not_change_a_prompts_text() {
    for settings in [greedy(), Generation { top_p: 0.9, max_length: 12, ..sampled() }] {
        let wanted = run_with(&Generation { batch_size: 1, ..settings.clone() }, &prompts(), None);
        for batch_size in [3, 16, 100] {
            let settings = Generation { batch_size, ..settings.clone() };
            let together = run_with(&settings, &prompts(), None);
            assert_eq!(together.results, wanted.results, "batches of {batch_size}");
        }
    }
}

#[test]
fn a_free_row_goes_to_the_next_prompt() {
    let settings = Generation { batch_size: 4, max_length: 12, ..sampled() };
    let run = run_with(&settings, &prompts(), None);
    let tokens: usize = run.results.iter().map(|result| result.tokens.len()).sum();
    let ended = |result: &&Generated| result.stop_reason == StopReason::EndOfSequence;
    let ended = run.results.iter().filter(ended).count();
    assert_eq!(run.passes.iter().sum::<usize>(), tokens + ended, "a pass for each token");
    let last_full = run.passes.iter().rposition(|rows| *rows == 4).expect("full passes");
    assert!(run.passes[..last_full].iter().all(|rows| *rows == 4), "{:?}", run.passes);
}

#[test]
fn seeds_and_numbers_address_the_draws() {
    let same = vec![vec![3, 4]; 2];
    let settings = Generation { max_length: 12, ..sampled() };
    let run = run_with(&settings, &same, None);
    assert_ne!(run.results[0], run.results[1], "equal prompts have draws of their own");
    assert_eq!(run_with(&settings, &same, None).results, run.results);
    let other = Generation { seed: 5, ..settings };
    assert_ne!(run_with(&other, &same, None).results, run.results);
}

#[test]
fn texts_end_for_the_stated_reason() {
    let settings = Generation { max_length: 6, ..greedy() };
    let plain = run_with(&settings, &prompts(), None);
    for result in &plain.results {
        let full = result.tokens.len() == 6;
        let reason = if full { StopReason::MaxLength } else { StopReason::EndOfSequence };
        assert_eq!(result.stop_reason, reason);
        assert!(!result.tokens.contains(&END), "the end token is not part of the text");
    }
    let context = 9;
    for (prompt, result) in prompts().iter().zip(run_with(&settings, &prompts(), Some(9)).results) {
        // One token more than the model can read: the last one is never read.
        assert!(prompt.len() + result.tokens.len() <= context + 1);
        if result.stop_reason == StopReason::ContextFull {
            assert_eq!(prompt.len() + result.tokens.len(), context + 1);
        }
    }
}

#[test]
fn end_strings_cut_the_text_also_inside_it() {
    let settings = Generation { max_length: 6, ..greedy() };
    let plain = run_with(&settings, &prompts(), None);
    let text = &plain.results[0].text;
    assert_eq!(text.len(), 6);
    for end in [text[2..3].to_owned(), text[2..4].to_owned()] {
        let first = text.find(&end).expect("taken from the text");
        let settings = Generation { end_strings: vec![end.clone()], ..settings.clone() };
        let run = run_with(&settings, &prompts(), None);
        assert_eq!(run.results[0].text, text[..first]);
        assert_eq!(run.results[0].stop_reason, StopReason::EndString);
        assert!(run.results.iter().all(|result| !result.text.contains(&end)));
        for (prompt, result) in run.results.iter().enumerate() {
            let streamed = run.streamed.get(&prompt).map_or("", String::as_str);
            assert_eq!(streamed, result.text, "the pieces add up to the text");
        }
    }
}

#[test]
fn prompts_that_cannot_be_decoded_are_refused() {
    let rules = Rules::new(&greedy(), WIDTH, Some(END)).expect("legal settings");
    let refused = |prompt: Vec<u32>, stopped: bool| {
        let stop = AtomicBool::new(stopped);
        let prompts = [vec![1], prompt];
        let request = Request {
            prompts: &prompts,
            rules: &rules,
            vocabulary: &Letters,
            stop: &stop,
            share: (0, 1),
        };
        let mut model = Hashing { context: Some(3), ..Hashing::default() };
        decode(&mut model, &request, &mut |_| ()).unwrap_err()
    };
    assert!(matches!(refused(vec![], false), Error::EmptyPrompt { prompt: 1 }));
    let long = refused(vec![1; 4], false);
    assert!(matches!(long, Error::LongPrompt { prompt: 1, tokens: 4, context: 3 }));
    assert!(matches!(refused(vec![1], true), Error::Stopped { done: 0, total: 2 }));
}
