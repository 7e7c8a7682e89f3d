//! Greedy decoding against transformers', token for token.

use super::sampling::greedy;
use super::small_model::NoTexts;
use serde::Deserialize;
use sft_run::checkpoint::whole::load_model;
use sft_run::engine::generation::{Cached, Request, Rules, decode};
use sft_run::engine::replica::Member;
use sft_run::spec::generation::Generation;
use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;

/// What `tests/checkpoints/record_greedy.py` recorded.
#[derive(Deserialize)]
struct Record {
    prompts: Vec<Vec<u32>>,
    new_tokens: Vec<Vec<u32>>,
    smallest_margin: f32,
}

fn check(name: &str) {
    let folder =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/checkpoints").join(name);
    let text = fs::read_to_string(folder.join("greedy.json")).expect("a record");
    let record: Record = serde_json::from_str(&text).expect("the script's form");
    // Logits agree to 1e-4 at worst and 1e-6 as a rule: no token hangs on rounding.
    assert!(record.smallest_margin > 1e-4, "{name}: {}", record.smallest_margin);
    let model = load_model(&folder).expect("a model");
    let member = Member::alone(&model).expect("one rank");
    let length = record.new_tokens[0].len();
    let stop = AtomicBool::new(false);
    for batch_size in [1, 4] {
        let settings = Generation { max_length: length, batch_size, ..greedy() };
        let vocabulary = model.architecture().vocab_size;
        let rules = Rules::new(&settings, vocabulary, None).expect("legal settings");
        let prompts = &record.prompts;
        let request =
            Request { prompts, rules: &rules, vocabulary: &NoTexts, stop: &stop, share: (0, 1) };
        let longest = prompts.iter().map(Vec::len).max().expect("prompts") + length;
        let mut cached = Cached::new(member.whole().expect("one rank"), batch_size, &[longest; 4])
            .expect("a cache");
        let results = decode(&mut cached, &request, &mut |_| ()).expect("decodes");
        let ours: Vec<_> = results.into_iter().map(|result| result.tokens).collect();
        assert_eq!(ours, record.new_tokens, "{name} in batches of {batch_size}");
    }
}

#[test]
fn greedy_tokens_are_those_of_transformers() {
    for name in ["gpt2", "llama", "mistral_sharded", "gpt_neox", "gpt_neox_serial"] {
        check(name);
    }
}
