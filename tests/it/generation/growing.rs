//! Texts that grow token by token against decoding all tokens again.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use sft_run::data::tokenizer::Tokenizer;
use sft_run::engine::generation::{Growing, ModelError, Texts, Vocabulary};
use sft_run::spec::job::TokenizerKind;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn tokenizer(kind: TokenizerKind, files: &[(&str, PathBuf)]) -> Tokenizer {
    let named = files.iter().map(|(name, path)| ((*name).to_owned(), path.clone()));
    Tokenizer::load(kind, &named.collect::<BTreeMap<_, _>>()).expect("a tokenizer")
}

/// A `tokenizer.json` of words, bytes and a special token, with this decoder.
fn with_decoder(decoder: &str) -> Tokenizer {
    let mut pieces = ["</s>", "▁", "▁a", "b", "▁é", "日", "。", "c</w>", "d</w>", "##e", "▁▁"]
        .map(str::to_owned)
        .to_vec();
    pieces.extend((0..=255).map(|byte| format!("<0x{byte:02X}>")));
    let vocabulary: BTreeMap<_, _> = pieces.iter().zip(0..).collect();
    let json = format!(
        r#"{{"version": "1.0", "truncation": null, "padding": null, "normalizer": null,
        "added_tokens": [{{"id": 0, "content": "</s>", "single_word": false, "lstrip": false,
        "rstrip": false, "normalized": false, "special": true}}],
        "pre_tokenizer": null, "post_processor": null, "decoder": {decoder},
        "model": {{"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
        "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": true,
        "vocab": {}, "merges": []}}}}"#,
        serde_json::to_string(&vocabulary).expect("plain texts")
    );
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("tokenizer.json");
    std::fs::write(&path, json).expect("a file");
    tokenizer(TokenizerKind::HuggingFace, &[("tokenizer.model", path)])
}

const LLAMA: &str = r#"{"type": "Sequence", "decoders": [
    {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
    {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}"#;
/// Changes text that is joined already.
const UNKNOWN: &str = r#"{"type": "Sequence", "decoders": [{"type": "Fuse"},
    {"type": "Replace", "pattern": {"String": "bb"}, "content": "X"}]}"#;

/// Tokenizers of every kind, by name.
fn all() -> Vec<(String, Tokenizer)> {
    let mut all = Vec::new();
    for name in ["botchan_en_bpe_1000", "botchan_en_unigram_1000", "llama_style_32000"] {
        let path = fixture(&format!("data/{name}.model"));
        all.push((
            name.to_owned(),
            tokenizer(TokenizerKind::SentencePiece, &[("tokenizer.model", path)]),
        ));
    }
    for name in ["classifiers/bert", "classifiers/roberta", "generation/choices", "program"] {
        let path = fixture(&format!("{name}/tokenizer.json"));
        all.push((
            name.to_owned(),
            tokenizer(TokenizerKind::HuggingFace, &[("tokenizer.model", path)]),
        ));
    }
    let decoders = [
        "null",
        LLAMA,
        UNKNOWN,
        r#"{"type": "WordPiece", "prefix": "/w", "cleanup": true}"#,
        r#"{"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": false}"#,
    ];
    all.extend(decoders.map(|decoder| (decoder.to_owned(), with_decoder(decoder))));
    all
}

/// Counts the tokens that are decoded.
struct Counted<'a>(Texts<'a>, AtomicUsize);

impl Vocabulary for Counted<'_> {
    fn text(&self, before: &[u32], tokens: &[u32]) -> Result<String, ModelError> {
        self.1.fetch_add(before.len() + tokens.len(), Ordering::Relaxed);
        self.0.text(before, tokens)
    }

    fn settles(&self, tokens: &[u32], text: &str) -> bool {
        self.0.settles(tokens, text)
    }

    fn single_token(&self, text: &str) -> Option<u32> {
        self.0.single_token(text)
    }
}

/// The last text, and how many tokens were decoded for all.
fn grown(tokenizer: &Tokenizer, before: &[u32], tokens: &[u32]) -> (String, usize) {
    let counted = Counted(Texts(tokenizer), AtomicUsize::new(0));
    let mut growing = Growing::default();
    for length in 1..=tokens.len() {
        growing.grow(&counted, before, &tokens[..length]).expect("a text");
        let whole = Texts(tokenizer).text(before, &tokens[..length]).expect("a text");
        assert_eq!(growing.text(), whole, "{before:?} then {:?}", &tokens[..length]);
    }
    (growing.into_text(), counted.1.into_inner())
}

/// What tokens are made of: some text, or an id.
#[derive(Clone, Debug)]
enum Part {
    Text(String),
    Id(u32),
}

fn ids(tokenizer: &Tokenizer, parts: &[Part]) -> Vec<u32> {
    let mut ids = Vec::new();
    for part in parts {
        match part {
            Part::Text(text) => ids.extend(tokenizer.encode(text).unwrap_or_default()),
            Part::Id(id) => ids.push(id % tokenizer.vocab_size() as u32),
        }
    }
    ids
}

fn parts() -> impl Strategy<Value = Vec<Part>> {
    let part = prop_oneof![
        "[ abé日😀.\n\u{fffd}]{0,6}".prop_map(Part::Text),
        any::<u32>().prop_map(Part::Id),
        // The first ids: special tokens and single characters, often the bytes.
        (0..300_u32).prop_map(Part::Id),
    ];
    proptest::collection::vec(part, 0..12)
}

#[test]
fn every_text_is_that_of_all_its_tokens() {
    for (name, tokenizer) in all() {
        let mut runner = TestRunner::new(Config { cases: 150, ..Config::default() });
        let result = runner.run(&(parts(), parts(), 0..9_usize), |(before, tokens, cut)| {
            let (mut before, tokens) = (ids(&tokenizer, &before), ids(&tokenizer, &tokens));
            // A prompt may end inside a character.
            before.truncate(before.len().saturating_sub(cut / 3));
            grown(&tokenizer, &before, &tokens);
            Ok(())
        });
        assert!(result.is_ok(), "{name}: {}", result.unwrap_err());
    }
}

#[test]
fn long_texts_are_not_decoded_again_and_again() {
    let text = "The plant 日本語 grows, é 😀 a b.\n".repeat(12);
    let mut seen = 0;
    for (name, tokenizer) in all() {
        let tokens = tokenizer.encode(&text).expect("tokens");
        let (_, decoded) = grown(&tokenizer, &[], &tokens);
        let all = tokens.len() * tokens.len() / 2;
        if name == UNKNOWN {
            assert!(decoded >= all, "a decoder that is not known: {decoded} of {all}");
        } else if tokens.len() > 100 && !name.contains("ByteFallback") {
            seen += 1;
            assert!(decoded < 12 * tokens.len(), "{name}: {decoded} for {}", tokens.len());
        }
    }
    assert!(seen >= 7, "{seen} tokenizers are looked at");
}
