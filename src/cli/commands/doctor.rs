//! `sft-run doctor`: what this build and this machine can do.

use crate::cli::environment;
use crate::cli::exit::Exit;
use crate::cli::session::Session;
use crate::cli::terminal::Paint;
use serde_json::json;
use std::path::Path;

/// What a line says about the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Good,
    Note,
}

/// Runs the command.
pub(in crate::cli) fn run(session: &Session) -> Exit {
    let findings = findings(session);
    if session.terminal.json {
        let list: Vec<_> = findings
            .iter()
            .map(|(standing, what, text)| json!({"what": what, "good": *standing == Standing::Good, "text": text}))
            .collect();
        let document =
            json!({"environment": environment::record(Path::new(".")), "findings": list});
        session.terminal.result(&format!("{document:#}"));
        return Exit::Done;
    }
    let mark = |standing: Standing| match standing {
        Standing::Good => session.terminal.paint(Paint::Green, "✓"),
        Standing::Note => session.terminal.paint(Paint::Yellow, "!"),
    };
    let lines = findings
        .iter()
        .map(|(standing, what, text)| format!("{} {what:<10} {text}\n", mark(*standing)));
    session.terminal.result(&lines.collect::<String>());
    Exit::Done
}

fn findings(session: &Session) -> Vec<(Standing, &'static str, String)> {
    let machine = environment::machine();
    let known = |name: &str| machine.get(name).cloned().unwrap_or_else(|| "unknown".to_owned());
    let build = format!("sft-run {}, {}, CPU only", env!("CARGO_PKG_VERSION"), profile());
    let profile_standing = if cfg!(debug_assertions) { Standing::Note } else { Standing::Good };
    vec![
        (profile_standing, "build", build),
        (Standing::Good, "system", format!("{}, {}", known("os"), known("architecture"))),
        (Standing::Good, "processor", format!("{}, {} threads", known("cpu"), known("cores"))),
        vector_units(),
        memory(),
        gpus(),
        git(),
        threads(session),
    ]
}

fn profile() -> &'static str {
    if cfg!(debug_assertions) {
        "dev profile: slow, build with --release"
    } else {
        "release profile"
    }
}

#[cfg(target_arch = "x86_64")]
fn vector_units() -> (Standing, &'static str, String) {
    let units = [
        ("AVX", is_x86_feature_detected!("avx")),
        ("AVX2", is_x86_feature_detected!("avx2")),
        ("FMA", is_x86_feature_detected!("fma")),
        ("AVX-512", is_x86_feature_detected!("avx512f")),
    ];
    let names: Vec<&str> = units.iter().filter(|(_, has)| *has).map(|(name, _)| *name).collect();
    let fast = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    let standing = if fast { Standing::Good } else { Standing::Note };
    (
        standing,
        "vectors",
        if names.is_empty() { "none: training will be slow".to_owned() } else { names.join(", ") },
    )
}

#[cfg(not(target_arch = "x86_64"))]
fn vector_units() -> (Standing, &'static str, String) {
    (Standing::Good, "vectors", format!("those of every {} processor", std::env::consts::ARCH))
}

fn memory() -> (Standing, &'static str, String) {
    match environment::memory() {
        Some(memory) => (Standing::Good, "memory", memory),
        None => (Standing::Note, "memory", "unknown: the system does not tell".to_owned()),
    }
}

fn gpus() -> (Standing, &'static str, String) {
    let text = match environment::gpus() {
        Some(gpus) => {
            let name = gpus.name.unwrap_or_else(|| "GPU".to_owned());
            format!("{} × {name}, not used: this build computes on the CPU", gpus.count)
        }
        None => "none found: recipes with `trainer.accelerator: cpu` run here".to_owned(),
    };
    (Standing::Note, "GPU", text)
}

fn git() -> (Standing, &'static str, String) {
    match environment::git(Path::new("."), &["--version"]) {
        Some(version) => (Standing::Good, "git", version),
        None => (Standing::Note, "git", "not found: runs do not record the commit".to_owned()),
    }
}

fn threads(session: &Session) -> (Standing, &'static str, String) {
    match session.environment.get("RAYON_NUM_THREADS") {
        Some(number) => (Standing::Note, "threads", format!("RAYON_NUM_THREADS is {number}")),
        None => (Standing::Good, "threads", format!("{} for computing", environment::cores())),
    }
}
