//! Ids and texts of the original tokenizers (tests/fixtures/data/record_tokenizers.py).

use super::fixture;
use serde_json::Value;
use sft_run::data::tokenizer::Tokenizer;
use sft_run::spec::job::TokenizerKind;
use std::collections::BTreeMap;

pub(super) fn sentencepiece(name: &str) -> Tokenizer {
    let files = BTreeMap::from([("tokenizer.model".to_owned(), fixture(name))]);
    Tokenizer::load(TokenizerKind::SentencePiece, &files).unwrap()
}

pub(super) fn gpt2() -> Tokenizer {
    let files = BTreeMap::from([
        ("tokenizer.vocab_file".to_owned(), fixture("gpt2/vocab.json")),
        ("tokenizer.merge_file".to_owned(), fixture("gpt2/merges.txt")),
    ]);
    Tokenizer::load(TokenizerKind::Gpt2Bpe, &files).unwrap()
}

fn recorded() -> BTreeMap<String, Value> {
    let text = std::fs::read_to_string(fixture("recorded_ids.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn check(tokenizer: &Tokenizer, recorded: &Value) {
    let mut wrong = Vec::new();
    assert_eq!(tokenizer.vocab_size() as u64, recorded["vocab_size"]);
    for case in recorded["cases"].as_array().unwrap() {
        let text = case["text"].as_str().unwrap();
        let expected: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
        let ids = tokenizer.encode(text).unwrap();
        if ids != expected {
            wrong.push(format!("encode {text:?}\n  {ids:?}, not\n  {expected:?}"));
        }
        let decoded = tokenizer.decode(&expected).unwrap();
        if case["decoded"] != decoded.as_str() {
            wrong.push(format!("decode {expected:?}\n  {decoded:?}, not\n  {}", case["decoded"]));
        }
        let mut stream = tokenizer.stream();
        let mut streamed = String::new();
        for id in &expected {
            streamed += &stream.push(*id).unwrap();
        }
        streamed += &stream.finish().unwrap();
        if streamed != decoded {
            wrong.push(format!("stream {expected:?}\n  {streamed:?}, not\n  {decoded:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn sentencepiece_models_give_the_recorded_ids() {
    let recorded = recorded();
    let models: Vec<_> = recorded.iter().filter(|(name, _)| name.ends_with(".model")).collect();
    assert_eq!(models.len(), 5);
    for (name, recorded) in models {
        println!("{name}");
        let tokenizer = sentencepiece(name);
        check(&tokenizer, recorded);
        let special = tokenizer.special();
        let id = |key: &str| u32::try_from(recorded[key].as_i64().unwrap()).ok();
        assert_eq!(
            [special.bos, special.eos, special.pad, special.unk],
            ["bos", "eos", "pad", "unk"].map(id)
        );
    }
}

#[test]
fn gpt2_gives_the_recorded_ids() {
    let tokenizer = gpt2();
    check(&tokenizer, &recorded()["gpt2"]);
    // As in GPT-2's own encoder.
    assert_eq!(tokenizer.encode("Hello world").unwrap(), [15496, 995]);
    assert_eq!((tokenizer.eos(), tokenizer.bos()), (Some(50256), Some(50256)));
}
