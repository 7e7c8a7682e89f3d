//! Samples of rows: templates, NeMo's rules by hand, masks, splits.

use super::tokenizers::{gpt2, sentencepiece};
use serde_json::{Value, json};
use sft_run::data::rows::Row;
use sft_run::data::samples::{Sample, SampleMaker};
use sft_run::data::tokenizer::Tokenizer;
use sft_run::spec::job::{Format, RowSource, Split, SplitRule, Task};
use std::collections::BTreeMap;

/// What `make` makes of a row with these fields.
fn with_row<T>(fields: &Value, make: impl FnOnce(&Row) -> T) -> T {
    make(&Row::parse(&fields.to_string()).unwrap())
}

fn task(format: Format) -> Task {
    Task {
        name: "task".to_owned(),
        share: 1.0,
        format,
        answer_only_loss: true,
        add_bos: false,
        add_eos: true,
    }
}

fn templates(prompt: &str, answer: &str) -> Format {
    Format::Templates { prompt: prompt.to_owned(), answer: answer.to_owned() }
}

fn nemo(template: &str, fields: &[&str], truncate_left: bool) -> Format {
    Format::Nemo {
        prompt_template: template.to_owned(),
        label_key: "output".to_owned(),
        truncation_field: fields.iter().map(|field| (*field).to_owned()).collect(),
        truncate_left,
        tokens_to_generate: 0,
    }
}

/// The only sample of a row under one task.
fn sample(tokenizer: &Tokenizer, task: Task, max_length: usize, fields: &Value) -> Sample {
    let source = RowSource { split: SplitRule::All(Split::Train), tasks: vec![task] };
    let maker = SampleMaker::new(&source, tokenizer, max_length).unwrap();
    let mut samples = with_row(fields, |row| maker.samples(row)).unwrap();
    assert_eq!(samples.len(), 1);
    samples.remove(0)
}

fn spell(tokenizer: &Tokenizer, ids: &[u32]) -> Vec<String> {
    ids.iter().map(|id| tokenizer.piece(*id).unwrap()).collect()
}

#[test]
fn only_the_answer_and_the_end_are_learned() {
    let tokenizer = gpt2();
    let fields = json!({"term": "oak", "gloss": "a tree", "kind": "plant"});
    let format = templates("{{ term }}: {{ gloss }} kind:", " {{ kind }}");
    let sample = sample(&tokenizer, task(format), 64, &fields);
    let expected = ["oak", ":", "Ġa", "Ġtree", "Ġkind", ":", "Ġplant", "<|endoftext|>"];
    assert_eq!(spell(&tokenizer, &sample.ids), expected);
    assert_eq!(sample.learned, [false, false, false, false, false, false, true, true]);
    assert_eq!((sample.prompt.as_str(), sample.expected.as_str()), ("oak: a tree kind:", " plant"));
    assert_eq!(tokenizer.encode(&sample.prompt).unwrap(), sample.ids[..sample.prompt_ids]);
    // As a training sequence: the colon predicts the first token of the answer.
    let mut sequence = sft_run::data::sequences::Sequence::new();
    sequence.push_sample(&sample.ids, &sample.learned);
    let learned: Vec<_> = (0..sequence.tokens.len()).filter(|at| sequence.loss_mask[*at]).collect();
    assert_eq!(learned, [5, 6]);
    assert_eq!(sequence.labels[5], tokenizer.encode(" plant").unwrap()[0]);
    assert_eq!(Some(sequence.labels[6]), tokenizer.eos());
}

#[test]
fn the_settings_of_a_task_are_followed() {
    let tokenizer = gpt2();
    let fields = json!({"a": "x", "b": " y"});
    let base = task(templates("{{ a }}", "{{ b }}"));
    let all = sample(&tokenizer, Task { answer_only_loss: false, ..base.clone() }, 64, &fields);
    assert_eq!(all.learned, [true, true, true]);
    let bos = sample(&tokenizer, Task { add_bos: true, add_eos: false, ..base }, 64, &fields);
    assert_eq!(spell(&tokenizer, &bos.ids), ["<|endoftext|>", "x", "Ġy"]);
    assert_eq!((bos.learned, bos.prompt_ids), (vec![false, false, true], 2));
    let text = task(Format::Text { field: "a".to_owned() });
    let text = sample(&tokenizer, text, 64, &fields);
    assert_eq!((text.ids.len(), text.learned, text.prompt_ids), (2, vec![true, true], 0));
}

#[test]
fn a_continued_text_has_one_space_where_one_is_written() {
    let tokenizer = sentencepiece("llama_style_32000.model");
    let fields = json!({"term": "oak", "kind": "plant"});
    let spaced =
        sample(&tokenizer, task(templates("{{ term }} kind:", " {{ kind }}")), 64, &fields);
    assert_eq!(tokenizer.decode(&spaced.ids).unwrap(), "oak kind: plant");
    let close = sample(&tokenizer, task(templates("{{ term }} kind:", "{{ kind }}")), 64, &fields);
    assert_eq!(tokenizer.decode(&close.ids).unwrap(), "oak kind:plant");
    // Joined and apart give the same pieces where the original cuts at spaces anyway.
    assert_eq!(tokenizer.encode("oak kind: plant").unwrap(), spaced.ids[..spaced.ids.len() - 1]);
}

#[test]
fn long_samples_lose_the_far_end_of_the_prompt_first() {
    let tokenizer = gpt2();
    let fields = json!({"p": " a b c d", "a": " e f"});
    let format = templates("{{ p }}", "{{ a }}");
    let check = |max_length, expected: &[&str], prompt_ids, cut| {
        let sample = sample(&tokenizer, task(format.clone()), max_length, &fields);
        assert_eq!(spell(&tokenizer, &sample.ids), expected);
        assert_eq!((sample.prompt_ids, sample.cut), (prompt_ids, cut));
    };
    check(7, &["Ġa", "Ġb", "Ġc", "Ġd", "Ġe", "Ġf", "<|endoftext|>"], 4, false);
    check(5, &["Ġc", "Ġd", "Ġe", "Ġf", "<|endoftext|>"], 2, true);
    // The answer is cut on its right, and does not claim to end there.
    check(2, &["Ġe", "Ġf"], 0, true);
    let text = task(Format::Text { field: "p".to_owned() });
    let text = sample(&tokenizer, text, 3, &fields);
    assert_eq!(spell(&tokenizer, &text.ids), ["Ġa", "Ġb", "Ġc"]);
}

#[test]
fn nemo_templates_are_tokenized_piece_by_piece() {
    let fields = json!({"input": " What is it?  ", "output": "a tree "});
    // Space-sensitive: the placeholder's space stays with the value, outer spaces are gone.
    let tokenizer = gpt2();
    let sensitive =
        sample(&tokenizer, task(nemo("Q: {input} {output}", &["input"], false)), 64, &fields);
    let expected = ["Q", ":", "ĠWhat", "Ġis", "Ġit", "?", "Ġa", "Ġtree", "<|endoftext|>"];
    assert_eq!(spell(&tokenizer, &sensitive.ids), expected);
    assert_eq!(sensitive.learned.iter().filter(|learned| **learned).count(), 3);
    assert_eq!(sensitive.prompt, "Q: What is it?");
    // Not space-sensitive: the space is dropped, the tokenizer puts its own.
    let tokenizer = sentencepiece("botchan_en_bpe_1000.model");
    assert!(!tokenizer.space_sensitive() && gpt2().space_sensitive());
    let own = sample(&tokenizer, task(nemo("Q: {input} {output}", &["input"], false)), 64, &fields);
    let parts = ["Q:", "What is it?", "a tree"].map(|text| tokenizer.encode(text).unwrap());
    assert_eq!(own.ids[..own.ids.len() - 1], parts.concat());
    assert_eq!(own.ids.last().copied(), tokenizer.eos());
}

#[test]
fn nemo_templates_are_cut_by_its_rules() {
    let tokenizer = gpt2();
    let fields = json!({"a": "one two three four", "b": "five six seven", "output": "yes no"});
    let check = |max_length, cut_from: &[&str], left, expected: &[&str]| {
        let format = nemo("{a} {b} {output}", cut_from, left);
        let sample = sample(&tokenizer, task(format), max_length, &fields);
        assert_eq!(tokenizer.decode(&sample.ids).unwrap(), expected.join(""));
        assert!(sample.cut && sample.ids.len() <= max_length);
    };
    // 4 + 3 + 2 + eos = 10: 3 over, of which the first field gives 2 and the second 1.
    check(7, &["a", "b"], false, &["one two", " five six", " yes no"]);
    check(7, &["a", "b"], true, &[" three four", " six seven", " yes no"]);
    check(7, &["b"], false, &["one two three four", " yes no"]);
    // The second field has 3 and should give 5: then the whole is cut on the right.
    check(5, &["b"], false, &["one two three four", " yes"]);
}

#[test]
fn wrong_settings_and_rows_are_refused() {
    let tokenizer = gpt2();
    let refuse = |task: Task| {
        let source = RowSource { split: SplitRule::All(Split::Train), tasks: vec![task] };
        SampleMaker::new(&source, &tokenizer, 64).unwrap_err().to_string()
    };
    let error = refuse(task(templates("{{ a", "{{ b }}")));
    assert!(error.starts_with("task `task`: prompt `{{ a` is not a template"), "{error}");
    let error = refuse(task(nemo("{output} {input}", &[], false)));
    assert!(error.contains("must end with `{output}`"), "{error}");
    let source = RowSource {
        split: SplitRule::All(Split::Train),
        tasks: vec![task(templates("{{ term }}", "{{ kind }}"))],
    };
    let maker = SampleMaker::new(&source, &tokenizer, 64).unwrap();
    let error =
        with_row(&json!({"term": "oak", "sort": "plant"}), |row| maker.samples(row)).unwrap_err();
    assert_eq!(error, "it has no field `kind` (its fields: sort, term)");
    let nothing = with_row(&json!({"term": "oak", "kind": ""}), |row| maker.samples(row)).unwrap();
    assert!(nothing[0].teaches(), "eos is learned");
}

#[test]
fn tokens_that_the_tokenizer_lacks_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    let vocabulary = json!({"a": 0, "b": 1});
    let model = json!({"type": "BPE", "vocab": vocabulary, "merges": []});
    std::fs::write(&path, json!({"version": "1.0", "model": model}).to_string()).unwrap();
    let files = BTreeMap::from([("tokenizer.model".to_owned(), path)]);
    let tokenizer =
        Tokenizer::load(sft_run::spec::job::TokenizerKind::HuggingFace, &files).unwrap();
    let source =
        RowSource { split: SplitRule::All(Split::Train), tasks: vec![task(templates("a", "b"))] };
    let error = SampleMaker::new(&source, &tokenizer, 64).unwrap_err().to_string();
    assert_eq!(
        error,
        "task `task` sets add_eos, but the tokenizer has no such token: set it to false"
    );
}

#[test]
fn splits_follow_the_hash_of_a_field_and_keep_equal_values_together() {
    let tokenizer = gpt2();
    let source = RowSource {
        split: SplitRule::ByHash { field: "gloss".to_owned(), validation: 0.1, test: 0.2 },
        tasks: vec![
            task(templates("{{ term }}", "{{ gloss }}")),
            Task { name: "some".to_owned(), share: 0.3, ..task(templates("{{ term }}", "x")) },
        ],
    };
    let maker = SampleMaker::new(&source, &tokenizer, 64).unwrap();
    let mut splits: BTreeMap<String, Vec<Split>> = BTreeMap::new();
    let (mut counts, mut shared) = (BTreeMap::new(), 0);
    for number in 0..6000 {
        let gloss = format!("gloss {}", number / 2);
        let fields = json!({"term": format!("term {number}"), "gloss": gloss.clone()});
        let make = || with_row(&fields, |row| maker.samples(row)).unwrap();
        let samples = make();
        splits.entry(gloss).or_default().push(samples[0].split);
        *counts.entry(samples[0].split).or_insert(0) += 1;
        shared += samples.len() - 1;
        assert_eq!(samples, make());
    }
    assert!(splits.values().all(|both| both[0] == both[1]), "a gloss is on two sides");
    // Within four standard deviations (3,000 glosses, 6,000 rows).
    let near = |count: usize, share: f64, of: f64, each: f64| {
        let deviation = (of * share * (1.0 - share)).sqrt();
        assert!((count as f64 / each - of * share).abs() < 4.0 * deviation, "{count}");
    };
    near(counts[&Split::Validation], 0.1, 3000.0, 2.0);
    near(counts[&Split::Test], 0.2, 3000.0, 2.0);
    near(shared, 0.3, 6000.0, 1.0);
}
