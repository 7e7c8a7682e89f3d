//! Chat templates: texts and answers as Transformers renders them, and samples made of them.

use super::fixture;
use super::tokenizers::{gpt2, sentencepiece};
use serde_json::{Value, json};
use sft_run::data::rows::Row;
use sft_run::data::samples::{Sample, SampleMaker};
use sft_run::data::template::chat::ChatTemplate;
use sft_run::data::tokenizer::Tokenizer;
use sft_run::spec::job::{Format, RowSource, Split, SplitRule, Task};

fn recorded() -> Value {
    let text = std::fs::read_to_string(fixture("chat_templates.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn template(recorded: &Value, name: &str) -> ChatTemplate {
    let word = |value: &Value| value.as_str().unwrap().to_owned();
    let special = ["bos_token", "eos_token"].map(|key| (key, word(&recorded["special"][key])));
    let source = recorded["templates"][name].as_str().unwrap();
    ChatTemplate::parse(source, &special, recorded["date"].as_str()).unwrap()
}

/// Counts of characters to places in bytes.
fn bytes(text: &str, span: &Value) -> std::ops::Range<usize> {
    let at = |end: usize| {
        let count = span[end].as_u64().unwrap() as usize;
        text.char_indices().nth(count).map_or(text.len(), |(at, _)| at)
    };
    at(0)..at(1)
}

#[test]
fn templates_give_the_texts_that_transformers_gives() {
    let recorded = recorded();
    let mut wrong = Vec::new();
    for case in recorded["cases"].as_array().unwrap() {
        let [name, conversation] =
            ["template", "conversation"].map(|key| case[key].as_str().unwrap());
        let template = template(&recorded, name);
        let row = recorded["rows"][conversation].as_str().unwrap();
        let continued = case["prompt"] == true;
        let prompt = template.prompt(row, "messages");
        let rendered = template.render(row, "messages");
        let text = if continued { prompt } else { rendered.clone().map(|rendered| rendered.text) };
        let place = format!("{name}, {conversation}, prompt {continued}");
        match (&text, case["text"].as_str(), case["refused"].as_str()) {
            (Ok(text), Some(expected), _) if text != expected => {
                wrong.push(format!("{place}\n{text:?}, not\n{expected:?}"));
            }
            (Ok(_), Some(_), _) => {}
            (Err(error), _, Some(reason)) if error.contains(reason) => {}
            // What goes wrong inside is told in other words.
            (Err(_), _, Some(reason)) if reason.contains("has no attribute") => {}
            // Without marks, answers are what a turn adds; these rewrite what stood before.
            (Err(error), Some(_), _) if !continued && error.contains("{% generation %}") => {}
            (other, ..) => wrong.push(format!("{place}: {other:?}, not {case}")),
        }
        let spans = case["spans"].as_array().filter(|_| !continued);
        if let (Some(spans), Ok(rendered)) = (spans, rendered) {
            let expected: Vec<_> = spans.iter().map(|span| bytes(&rendered.text, span)).collect();
            assert_eq!(rendered.answers, expected, "{place}");
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// The answers that a template without marks gives a conversation.
fn answers(name: &str, conversation: &str) -> Result<Vec<String>, String> {
    let recorded = recorded();
    let row = recorded["rows"][conversation].as_str().unwrap();
    let rendered = template(&recorded, name).render(row, "messages")?;
    Ok(rendered.answers.into_iter().map(|span| rendered.text[span].to_owned()).collect())
}

#[test]
fn without_marks_an_answer_is_what_its_turn_adds() {
    let daisy = "Une fleur, né à l'été 🌼.";
    let chatml = answers("chatml", "two_turns").unwrap();
    assert_eq!(chatml, ["A tree.<|im_end|>\n".to_owned(), format!("{daisy}  <|im_end|>\n")]);
    let llama = answers("llama2", "two_turns").unwrap();
    assert_eq!(llama, [" A tree. </s>\n".to_owned(), format!(" {daisy} </s>\n")]);
    let three = answers("llama3", "two_turns").unwrap();
    assert_eq!(three, ["A tree.<|eot_id|>".to_owned(), format!("{daisy}<|eot_id|>")]);
    assert_eq!(answers("mistral", "greeting").unwrap(), [" A tree.</s>"]);
    assert!(answers("chatml", "question_only").unwrap().is_empty());
    // The template takes thoughts out of earlier turns, so their answers differ from what was said.
    assert!(answers("mistral", "system").is_err(), "the system's text moves to the last turn");
    let error = answers("thinking", "thought").unwrap_err();
    assert!(error.contains("before message 2") && error.contains("{% generation %}"), "{error}");
}

#[test]
fn a_template_shows_where_an_assistants_turn_ends() {
    let recorded = recorded();
    let end = |name: &str| template(&recorded, name).turn_end();
    for (name, expected) in [
        ("chatml", "<|im_end|>"),
        ("llama2", "</s>"),
        ("llama3_dated", "<|eot_id|>"),
        ("mistral", "</s>"),
        ("marked_lines", "</s>"),
        ("thinking", "<|im_end|>"),
    ] {
        assert_eq!(end(name).as_deref(), Some(expected), "{name}");
    }
    let of = |source: &str| ChatTemplate::parse(source, &[], None).unwrap().turn_end();
    let lines = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}";
    assert_eq!(of(lines).as_deref(), Some("\nuser:"));
    assert_eq!(of("{% for m in messages %}{{ m.content }}{% endfor %}"), None);
    assert_eq!(of("{{ raise_exception('never') }}"), None);
}

#[test]
fn the_day_is_the_recipes_or_none() {
    let dated = recorded();
    let source = dated["templates"]["llama3_dated"].as_str().unwrap();
    let row = dated["rows"]["greeting"].as_str().unwrap();
    let special = [("bos_token", "<s>".to_owned())];
    let text = |date| ChatTemplate::parse(source, &special, date).unwrap().prompt(row, "messages");
    assert!(text(None).unwrap().contains("Today Date: 26 Jul 2024\n"));
    assert!(text(Some("2026-02-28")).unwrap().contains("Today Date: 28 Feb 2026\n"));
    assert!(ChatTemplate::parse(source, &special, Some("2026-02-30")).is_err());
    let needs = ChatTemplate::parse("{{ strftime_now('%Y') }}", &[], None).unwrap();
    let error = needs.prompt(row, "messages").unwrap_err();
    assert!(error.contains("give the task a `date`") && error.contains("line 1"), "{error}");
}

#[test]
fn hostile_templates_and_rows_are_refused() {
    let row = r#"{"messages": [{"role": "user", "content": "x"}]}"#;
    let told = |source: &str, row: &str| {
        ChatTemplate::parse(source, &[], None).unwrap().render(row, "messages").unwrap_err()
    };
    let forever = "{% for a in range(10000) %}{% for b in range(10000) %}{% endfor %}{% endfor %}";
    assert!(told(forever, row).contains("fuel"), "{}", told(forever, row));
    assert!(told("{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}", row).contains("recursion"));
    let deep = format!("{{{{ {}1 }}}}", "not ".repeat(100_000));
    assert!(ChatTemplate::parse(&deep, &[], None).unwrap_err().to_string().contains("1000 tags"));
    let syntax = ChatTemplate::parse("{% generation %}", &[], None).unwrap_err().to_string();
    assert!(syntax.starts_with("the chat template cannot be read"), "{syntax}");
    assert!(
        told("", "{\"messages\": [{\"role\": \"a\", \"content\": \"\u{FDD0}\"}]}")
            .contains("U+FDD0")
    );
    assert!(told("", r#"{"other": 1}"#).contains("no field `messages` (its fields: other)"));
    assert!(told("", r#"{"messages": "text"}"#).contains("no list of messages"));
    assert!(told("", r#"{"messages": [{"who": 1}]}"#).contains("message 1 has neither"));
}

fn task(source: Option<&str>, messages: &str) -> Task {
    Task {
        name: "chat".to_owned(),
        share: 1.0,
        format: Format::Chat {
            template: source.map(str::to_owned),
            messages: messages.to_owned(),
            date: None,
        },
        answer_only_loss: true,
        add_bos: false,
        add_eos: false,
    }
}

fn sample(tokenizer: &Tokenizer, task: Task, max_length: usize, row: &Value) -> Sample {
    let source = RowSource { split: SplitRule::All(Split::Train), tasks: vec![task] };
    let maker = SampleMaker::new(&source, tokenizer, max_length).unwrap();
    let line = row.to_string();
    maker.samples(&Row::parse(&line).unwrap()).unwrap().remove(0)
}

/// The learned stretches of a sample as texts.
fn learned(tokenizer: &Tokenizer, sample: &Sample) -> Vec<String> {
    let runs = sample.learned.chunk_by(|one, next| one == next);
    let mut at = 0;
    let mut texts = Vec::new();
    for run in runs {
        let ids = &sample.ids[at..at + run.len()];
        if run[0] {
            texts.push(ids.iter().map(|id| tokenizer.piece(*id).unwrap()).collect());
        }
        at += run.len();
    }
    texts
}

#[test]
fn the_assistants_turns_of_a_conversation_are_learned() {
    let recorded = recorded();
    let source = recorded["templates"]["llama2"].as_str().unwrap();
    let tokenizer = sentencepiece("llama_style_32000.model");
    let turns = json!([
        {"from": "human", "value": "What is an oak?"}, {"from": "gpt", "value": "A tree."},
        {"from": "human", "value": "And a daisy?"}, {"from": "gpt", "value": "A flower."},
    ]);
    let row = json!({"system": "Be brief.", "conversations": turns});
    let sample = sample(&tokenizer, task(Some(source), "conversations"), 200, &row);
    assert_eq!(learned(&tokenizer, &sample), ["▁A▁tree.▁</s><0x0A>", "▁A▁flower.▁</s><0x0A>"]);
    // The special tokens that the template spells out are ids, not letters.
    let (bos, eos) = (tokenizer.bos().unwrap(), tokenizer.eos().unwrap());
    assert_eq!((sample.ids[0], sample.ids[sample.ids.len() - 2]), (bos, eos));
    assert_eq!(sample.ids.iter().filter(|id| **id == bos).count(), 2);
    assert!(
        sample.prompt.starts_with("<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>"),
        "{}",
        sample.prompt
    );
    assert!(sample.prompt.ends_with("And a daisy? [/INST]\n"), "{}", sample.prompt);
    assert_eq!(sample.expected, "A flower.");
    let prompt = tokenizer.encode_marked(&sample.prompt, true).unwrap();
    assert_eq!(prompt.last(), sample.ids[..sample.prompt_ids].last());
}

#[test]
fn marks_say_what_is_learned_and_long_conversations_are_cut_on_the_right() {
    let recorded = recorded();
    let source = recorded["templates"]["marked"].as_str().unwrap();
    let tokenizer = gpt2();
    let row: Value = serde_json::from_str(recorded["rows"]["system"].as_str().unwrap()).unwrap();
    let whole = sample(&tokenizer, task(Some(source), "messages"), 400, &row);
    assert_eq!(learned(&tokenizer, &whole), ["AĠtree.<|im_end|>"]);
    assert_eq!(tokenizer.decode(&whole.ids[..whole.prompt_ids]).unwrap(), whole.prompt);
    let mut all = task(Some(source), "messages");
    all.answer_only_loss = false;
    assert!(sample(&tokenizer, all, 400, &row).learned.iter().all(|learned| *learned));
    let cut = sample(&tokenizer, task(Some(source), "messages"), whole.prompt_ids + 1, &row);
    assert!(cut.cut && cut.ids == whole.ids[..=whole.prompt_ids] && cut.teaches());
    let nothing = sample(&tokenizer, task(Some(source), "messages"), 5, &row);
    assert!(nothing.cut && !nothing.teaches());
    let mut ends = task(Some(source), "messages");
    (ends.add_bos, ends.add_eos) = (true, true);
    let ends = sample(&tokenizer, ends, 400, &row);
    assert_eq!(ends.ids.len(), whole.ids.len() + 2);
    assert_eq!((ends.learned[0], ends.learned[ends.ids.len() - 1]), (false, true));
}

#[test]
fn a_tokenizer_brings_its_own_template() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        std::fs::write(folder.path().join(name), text).unwrap();
    };
    let json = super::fixture("../program/tokenizer.json");
    write("tokenizer.json", &std::fs::read_to_string(json).unwrap());
    let load = || {
        let files = std::collections::BTreeMap::from([(
            "tokenizer.model".to_owned(),
            folder.path().to_path_buf(),
        )]);
        Tokenizer::load(sft_run::spec::job::TokenizerKind::HuggingFace, &files).unwrap()
    };
    let source =
        RowSource { split: SplitRule::All(Split::Train), tasks: vec![task(None, "messages")] };
    let error = SampleMaker::new(&source, &load(), 50).unwrap_err().to_string();
    assert!(error.contains("the tokenizer has none"), "{error}");
    write(
        "tokenizer_config.json",
        r#"{"chat_template": [{"name": "tools", "template": "t"}, {"name": "default", "template": "d"}]}"#,
    );
    assert_eq!(load().chat_template().unwrap().as_deref(), Some("d"));
    write("tokenizer_config.json", r#"{"chat_template": "plain"}"#);
    assert_eq!(load().chat_template().unwrap().as_deref(), Some("plain"));
    write("chat_template.jinja", "own file");
    let tokenizer = load();
    assert_eq!(tokenizer.chat_template().unwrap().as_deref(), Some("own file"));
    // It goes along with the tokenizer.
    let saved = tempfile::tempdir().unwrap();
    tokenizer.save(saved.path()).unwrap();
    let again = Tokenizer::open(saved.path()).unwrap();
    assert_eq!(again.chat_template().unwrap().as_deref(), Some("own file"));
}
