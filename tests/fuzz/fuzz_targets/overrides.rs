//! Any lines as overrides, and the first one as `--hparams` and as a sweep: no panic.
//! Run it from tests/: `cargo +nightly fuzz run --fuzz-dir fuzz overrides`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sft_run::recipe::overrides::{expand_sweep, tried};
use sft_run::recipe::{Request, View, config_text};
use std::collections::BTreeMap;

const RECIPE: &str = "vars: {a: 1}
name: base
list: [0.9, 0.95]
maps: [{n: a}, {n: b}]
model:
  size: 8
  ffn: ${multiply:4,${.size}}
  none: null
  must: ???
  optim: {name: adam, lr: 6e-05, betas: [0.9, 0.95]}
";

fuzz_target!(|text: &str| {
    let name = format!("sft-run-fuzz-overrides-{}.yaml", std::process::id());
    let path = std::env::temp_dir().join(name);
    if !path.exists() {
        std::fs::write(&path, RECIPE).expect("a file");
    }
    // A value that starts with `@` names a file, and any file of this machine is not meant.
    if text.contains('@') {
        return;
    }
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let first = lines.first().map_or("", String::as_str);
    let environment = BTreeMap::new();
    for hparams in [None, Some(first)] {
        let request = Request {
            path: &path,
            overrides: if hparams.is_some() { &[] } else { &lines },
            variables: &[],
            environment: &environment,
            hparams,
            git: None,
            gpu: None,
        };
        for resolve in [false, true] {
            let _ = config_text(&request, &View { resolve, ..View::default() });
        }
    }
    let _ = tried(first);
    let _ = expand_sweep(&lines);
});
