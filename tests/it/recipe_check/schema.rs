//! The committed schemas are the ones that the types give; `SFT_UPDATE=1` rewrites them.

use sft_run::recipe::schema;
use std::fs;
use std::path::Path;

/// Compares a generated text with the committed file, or writes the file.
pub(super) fn same(name: &str, generated: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    if std::env::var_os("SFT_UPDATE").is_some() {
        sft_run::base::atomic_file::write(&path, generated.as_bytes()).expect("writable");
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == generated, "{name} is out of date: run SFT_UPDATE=1 cargo test");
}

#[test]
fn strict_schema_is_current() {
    same("schemas/recipe.strict.json", &schema::text(&schema::strict()));
}

#[test]
fn authoring_schema_is_current() {
    same("schemas/recipe.authoring.json", &schema::text(&schema::authoring()));
}
