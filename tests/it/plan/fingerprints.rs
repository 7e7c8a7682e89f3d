//! Fingerprints: the same for the same work, another for every setting and input.

use super::fixture::{job, job_json, stage};
use proptest::prelude::*;
use serde_json::{Value, json};
use sft_run::base::canonical_json;
use sft_run::base::digest::Digest;
use sft_run::plan::{Backend, Stage, fingerprint};
use sft_run::spec::job::Job;
use std::collections::BTreeMap;

const KINDS: [&str; 6] = ["tokenize", "shard", "load", "train", "evaluate", "generate"];

fn name(stage: &Stage) -> Digest {
    fingerprint::of(stage, &BTreeMap::new())
}

/// JSON pointers of every value that holds no other.
fn leaves(value: &Value, at: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            map.iter().for_each(|(key, item)| leaves(item, &format!("{at}/{key}"), found));
        }
        Value::Array(items) if !items.is_empty() => {
            let numbered = items.iter().enumerate();
            numbered.for_each(|(index, item)| leaves(item, &format!("{at}/{index}"), found));
        }
        _ => found.push(at.to_owned()),
    }
}

/// Values to try in place of `value`; enum settings take one of the words.
fn others(value: &Value) -> Vec<Value> {
    let words = [
        "rope",
        "rmsnorm",
        "gelu",
        "hf",
        "hugging_face",
        "train",
        "bf16",
        "perplexity",
        "WarmupPolicy",
        "distributed_fused_adam",
        "reduced_train_loss",
        "x",
    ];
    match value {
        Value::Bool(flag) => vec![json!(!flag)],
        Value::Number(number) => match number.as_u64() {
            Some(whole) => vec![json!(whole + 1)],
            None => vec![json!(number.as_f64().unwrap() + 0.25)],
        },
        Value::String(_) => words.iter().map(|word| json!(word)).collect(),
        _ => vec![json!([]), json!("x"), json!(1)],
    }
}

#[test]
fn every_setting_of_every_job_changes_it() {
    for kind in KINDS {
        let whole = job_json(kind);
        let first = name(&stage("s", kind, &[]));
        let mut pointers = Vec::new();
        leaves(&whole, "", &mut pointers);
        // When lines are logged changes nothing that comes out.
        pointers.retain(|pointer| pointer != "/train/trainer/log_every_n_steps");
        for pointer in pointers {
            let replaced = others(whole.pointer(&pointer).unwrap()).into_iter().map(|other| {
                let mut changed = whole.clone();
                *changed.pointer_mut(&pointer).unwrap() = other;
                changed
            });
            let jobs = replaced.filter_map(|changed| serde_json::from_value::<Job>(changed).ok());
            let names: Vec<_> =
                jobs.map(|job| name(&Stage { job, ..stage("s", kind, &[]) })).collect();
            assert!(!names.is_empty(), "no other value was found for {pointer}");
            assert!(!names.contains(&first), "{pointer} does not count");
        }
    }
}

#[test]
fn what_changes_no_output_does_not_count() {
    let check = |kind: &str, under: &[(&str, Value)], pointer: &str| {
        let with = |number: u64| {
            let changes = [under, &[(pointer, json!(number))]].concat();
            name(&Stage { job: job(kind, &changes), ..stage("s", kind, &[]) })
        };
        assert_eq!(with(3), with(7), "{pointer}");
    };
    check("train", &[], "/train/trainer/log_every_n_steps");
    check("train", &[("/train/stage/keep", Value::Null)], "/train/stage/checkpoint_every");
    check("shard", &[("/shard/stage/packing", json!(false))], "/shard/model/seed");
}

#[test]
fn a_job_loses_nothing_on_its_way_to_json() {
    for kind in KINDS {
        let job = stage("s", kind, &[]).job;
        let there = serde_json::to_value(&job).unwrap();
        // Maps are compared by content, so this holds whatever order they keep.
        assert_eq!(there, job_json(kind));
        assert_eq!(serde_json::from_value::<Job>(there).unwrap(), job);
    }
}

#[test]
fn kinds_devices_and_inputs_change_it() {
    let train = stage("s", "train", &[]);
    let elsewhere = Stage { backend: Some(Backend::Cuda), ..train.clone() };
    assert_ne!(name(&train), name(&elsewhere));
    let inputs = |name: &str, text: &str| {
        BTreeMap::from([(name.to_owned(), Digest::of_bytes(text.as_bytes()))])
    };
    let with = |inputs| fingerprint::of(&train, &inputs);
    let all = [
        with(inputs("data", "a")),
        with(inputs("data", "b")),
        with(inputs("model", "a")),
        name(&train),
    ];
    assert_eq!(all.iter().collect::<std::collections::BTreeSet<_>>().len(), all.len());
}

/// Holds the form of the hash itself: when this changes, every cache is void, so raise the version
/// in `plan/fingerprint.rs` and say so.
#[test]
fn it_is_the_same_on_every_machine_and_day() {
    let names: Vec<_> = KINDS
        .iter()
        .map(|kind| format!("{kind} {}", name(&stage("s", kind, &[])).short()))
        .collect();
    insta::assert_snapshot!(names.join("\n"));
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>()
            .prop_filter("JSON has no such number", |f| f.is_finite())
            .prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-c]{0,3}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// The same value with the entries of every map in the other order.
fn reversed(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(reversed).collect(),
        Value::Object(map) => {
            let entries: Vec<_> =
                map.iter().map(|(key, item)| (key.clone(), reversed(item))).collect();
            Value::Object(entries.into_iter().rev().collect())
        }
        scalar => scalar.clone(),
    }
}

proptest! {
    #[test]
    fn canonical_text_is_one_per_value(value in any_json(), other in any_json()) {
        let text = canonical_json::to_string(&value);
        prop_assert_eq!(&canonical_json::to_string(&reversed(&value)), &text);
        prop_assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value.clone());
        prop_assert_eq!(canonical_json::to_string(&other) == text, other == value);
    }
}
