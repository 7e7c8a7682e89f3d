//! `sft-run doctor`: what this build and this machine can do.

use crate::cli::environment;
use crate::cli::exit::Exit;
use crate::cli::libraries;
use crate::cli::session::Session;
use crate::cli::terminal::Paint;
use crate::stages::devices::{built_for_gpus, usable_gpus};
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
        let computing = environment::computing(built_for_gpus(), &session.environment);
        let document = json!({"environment": environment::record(computing, Path::new(".")), "findings": list});
        session.terminal.result(&format!("{document:#}"));
        return Exit::Done;
    }
    let mark = |standing: Standing| match standing {
        Standing::Good => session.terminal.paint(Paint::Green, "✓"),
        Standing::Note => session.terminal.paint(Paint::Yellow, "!"),
    };
    let lines = findings
        .iter()
        .map(|(standing, what, text)| format!("{} {what:<11} {text}\n", mark(*standing)));
    session.terminal.result(&lines.collect::<String>());
    Exit::Done
}

fn findings(session: &Session) -> Vec<(Standing, &'static str, String)> {
    let machine = environment::machine();
    let known = |name: &str| machine.get(name).cloned().unwrap_or_else(|| "unknown".to_owned());
    let computes = if built_for_gpus() { "CPU and NVIDIA GPUs" } else { "CPU only" };
    let build = format!("sft-run {}, {}, {computes}", env!("CARGO_PKG_VERSION"), profile());
    let profile_standing = if cfg!(debug_assertions) { Standing::Note } else { Standing::Good };
    let mut findings = vec![
        (profile_standing, "build", build),
        (Standing::Good, "system", format!("{}, {}", known("os"), known("architecture"))),
        (Standing::Good, "processor", format!("{}, {} threads", known("cpu"), known("cores"))),
        vector_units(),
        memory(),
    ];
    findings.extend(gpus(session));
    findings.extend([git(), threads(session)]);
    findings
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

/// The GPUs and, where there are some or the build is for them, the libraries.
fn gpus(session: &Session) -> Vec<(Standing, &'static str, String)> {
    let here = environment::gpus();
    let usable = usable_gpus();
    let (standing, text) = match &here {
        None if built_for_gpus() => (
            Standing::Note,
            "none found, and this build is for them: recipes with `trainer.accelerator: cpu` run here"
                .to_owned(),
        ),
        None => (
            Standing::Note,
            "none found: recipes with `trainer.accelerator: cpu` run here".to_owned(),
        ),
        Some(gpus) => {
            let name = gpus.name.as_deref().unwrap_or("GPU");
            let memory = gpus.memory.map_or(String::new(), |memory| {
                format!(" of {}", crate::report::numbers::bytes(memory))
            });
            let text = format!("{} × {name}{memory}", gpus.count);
            match usable {
                _ if !built_for_gpus() => (
                    Standing::Note,
                    format!("{text}, not used: build with `cargo build --release --features cuda`"),
                ),
                0 => (Standing::Note, format!("{text}, but the driver lets this program use none")),
                usable if usable < gpus.count => {
                    (Standing::Note, format!("{text}, of which this program may use {usable}"))
                }
                _ => (Standing::Good, text),
            }
        }
    };
    let mut findings = vec![(standing, "GPU", text)];
    if here.is_some() || built_for_gpus() {
        findings.extend(environment::driver().map(|driver| (Standing::Good, "driver", driver)));
        findings.extend(environment::nvlink().map(|links| (Standing::Good, "NVLink", links)));
        let search_path = session.environment.get("LD_LIBRARY_PATH").map(String::as_str);
        findings.extend(libraries::find(search_path).iter().map(library));
    }
    findings
}

fn library(library: &libraries::Library) -> (Standing, &'static str, String) {
    match &library.found {
        Some(path) => {
            let version = library.version().unwrap_or("of unknown version");
            let (standing, help) = if library.is_too_old() {
                (Standing::Note, format!(": {}", library.help))
            } else {
                (Standing::Good, String::new())
            };
            (standing, library.name, format!("{version}, {}{help}", path.display()))
        }
        None => {
            (Standing::Note, library.name, format!("{} not found: {}", library.file, library.help))
        }
    }
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
