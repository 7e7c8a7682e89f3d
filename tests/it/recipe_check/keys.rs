//! Every key that the schema allows has a status, and the committed listing is the table.

use super::schema::same;
use sft_run::recipe::keys;
use std::collections::BTreeSet;

#[test]
fn every_key_of_the_schema_has_one_status() {
    let mut table = BTreeSet::new();
    for key in keys::all() {
        assert!(table.insert(key.path.clone()), "{} stands twice in the table", key.path);
    }
    let schema = keys::in_schema();
    let without: Vec<_> = schema.difference(&table).collect();
    let unknown: Vec<_> = table.difference(&schema).collect();
    assert!(without.is_empty(), "keys without a status: {without:#?}");
    assert!(unknown.is_empty(), "no key of the schema: {unknown:#?}");
}

#[test]
fn every_refused_key_has_a_reason() {
    for key in keys::all() {
        let refused = key.status == keys::Status::Refused;
        assert!(!refused || key.refused.is_some(), "{} is refused without a reason", key.path);
    }
    for path in keys::refusals() {
        assert!(keys::all().iter().any(|key| key.path == path), "{path} is no key of the table");
    }
}

#[test]
fn the_listing_is_current() {
    same("schemas/keys.md", &keys::listing());
}
