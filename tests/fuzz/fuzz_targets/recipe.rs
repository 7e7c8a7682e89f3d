//! Any bytes as a recipe: a problem or values, no panic; and what is printed reads back the same.
//! Run it from tests/: `cargo +nightly fuzz run --fuzz-dir fuzz recipe`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sft_run::recipe::{Request, View, config_text, resolve};
use std::collections::BTreeMap;
use std::path::Path;

fn request<'a>(path: &'a Path, environment: &'a BTreeMap<String, String>) -> Request<'a> {
    let (overrides, variables) = (&[], &[]);
    Request { path, overrides, variables, environment, hparams: None, git: None, gpu: None }
}

fuzz_target!(|text: &[u8]| {
    let folder = std::env::temp_dir().join(format!("sft-run-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let environment = BTreeMap::from([("HOME".to_owned(), "/home".to_owned())]);
    // The second one is a template as a whole.
    for name in ["recipe.yaml", "recipe.yaml.j2"] {
        let path = folder.join(name);
        std::fs::write(&path, text).expect("a file");
        let request = request(&path, &environment);
        let Ok(resolved) = resolve(&request) else { continue };
        let view = View { resolve: true, ..View::default() };
        let printed = config_text(&request, &view).expect("it resolves");
        // A second reading gives a meaning to what the first one left as text.
        if printed.contains("${") || printed.contains("???") {
            continue;
        }
        let again = folder.join("again.yaml");
        std::fs::write(&again, &printed).expect("a file");
        let Ok(again) = resolve(&Request { path: &again, ..request }) else {
            // An empty mapping, a key of ours that has a meaning, or limits that are near.
            assert!(
                printed.trim() == "{}" || printed.contains("extends") || printed.len() > 1 << 16,
                "{printed}"
            );
            continue;
        };
        let texts = [&again.values, &resolved.values].map(|value| format!("{value:?}"));
        if !printed.contains("extends") {
            assert_eq!(texts[0], texts[1], "{printed}");
        }
    }
});
