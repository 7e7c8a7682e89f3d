//! Holds the source tree to the rules that ARCHITECTURE.md states.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Each room and the rooms it may use, lowest first.
const ROOMS: &[(&str, &[&str])] = &[
    ("base", &[]),
    ("spec", &["base"]),
    ("kernels", &["base"]),
    ("layout", &["base", "spec"]),
    ("parallel", &["base", "spec", "kernels", "layout"]),
    ("data", &["base", "spec"]),
    ("model", &["base", "spec", "kernels", "layout", "parallel"]),
    ("checkpoint", &["base", "spec", "layout", "parallel", "model"]),
    ("engine", &["base", "spec", "kernels", "layout", "parallel", "data", "model", "checkpoint"]),
    ("metrics", &["base", "spec"]),
    (
        "stages",
        &[
            "base",
            "spec",
            "kernels",
            "layout",
            "parallel",
            "data",
            "model",
            "checkpoint",
            "engine",
            "metrics",
        ],
    ),
    ("recipe", &["base", "spec"]),
    ("plan", &["base", "spec", "layout", "recipe"]),
    ("artifacts", &["base", "spec"]),
    ("runner", &["base", "spec", "plan", "artifacts", "stages"]),
    ("report", &["base", "spec", "artifacts"]),
    ("verify", &["base", "spec", "plan", "artifacts", "runner", "stages"]),
    ("sweep", &["base", "spec", "recipe", "report"]),
    (
        "cli",
        &[
            "base",
            "spec",
            "recipe",
            "plan",
            "artifacts",
            "runner",
            "report",
            "verify",
            "sweep",
            "stages",
        ],
    ),
];

/// Crates that only the named places may mention.
const WALLS: &[(&str, &[&str])] = &[
    ("candle_core", &["kernels", "parallel", "model", "checkpoint", "engine", "metrics"]),
    ("candle_nn", &["model", "metrics"]),
    ("cudarc", &["kernels", "parallel"]),
    ("serde_yaml", &["recipe", "spec", "checkpoint", "report/difference"]),
    ("minijinja", &["recipe/render", "data/template", "metrics", "report"]),
    ("schemars", &["spec", "recipe/schema"]),
    ("petgraph", &["plan"]),
    ("tokenizers", &["data/tokenizer"]),
    ("rustix", &["metrics/program"]),
    ("clap", &["cli"]),
];

/// Longest file, tests not counted.
const MAX_LINES: usize = 400;

#[test]
fn rooms_use_only_the_rooms_below_them() {
    let mut wrong = Vec::new();
    for file in Source::all() {
        let Some(room) = file.room() else { continue };
        let (_, allowed) = ROOMS.iter().find(|(name, _)| *name == room).unwrap_or_else(|| {
            panic!("src/{room} is not in ROOMS: add it there and to ARCHITECTURE.md")
        });
        for (line, used) in file.crate_paths() {
            if used != room && !allowed.contains(&used.as_str()) {
                wrong.push(format!("{}:{line}: {room} may not use {used}", file.name));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn the_order_of_rooms_has_no_cycle() {
    let mut seen = BTreeSet::new();
    for (room, uses) in ROOMS {
        for used in *uses {
            assert!(seen.contains(used), "{room} uses {used}, which stands above it");
        }
        seen.insert(room);
    }
}

#[test]
fn the_document_names_every_room_in_this_order() {
    let text = include_str!("../../src/ARCHITECTURE.md");
    let named: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("### `")).collect();
    let rooms: Vec<_> = ROOMS.iter().map(|(room, _)| format!("{room}`")).collect();
    assert_eq!(named, rooms);
}

#[test]
fn the_document_names_files_that_are_there() {
    let text = include_str!("../../src/ARCHITECTURE.md");
    let rooms: Vec<_> = ROOMS.iter().map(|(room, _)| format!("{room}/")).collect();
    // Names in back quotes; those in the sections of rooms are short for files of the room.
    let quoted = text.split('`').skip(1).step_by(2);
    let is_rust = |word: &&str| Path::new(word).extension().is_some_and(|ending| ending == "rs");
    let paths =
        quoted.filter(is_rust).filter(|word| !word.contains('*') && !word.contains("/name."));
    let paths = paths.filter(|word| rooms.iter().any(|room| word.starts_with(room)));
    let missing: Vec<_> = paths.filter(|path| !Path::new("src").join(path).is_file()).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn outside_crates_stay_behind_their_walls() {
    let mut wrong = Vec::new();
    for file in Source::all() {
        for (krate, places) in WALLS {
            let inside = places.iter().any(|place| file.name.starts_with(place));
            if let Some(line) = file.first_mention(krate).filter(|_| !inside) {
                wrong.push(format!("{}:{line}: {krate} belongs in {places:?}", file.name));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn every_file_is_short_and_says_what_it_is() {
    let mut wrong = Vec::new();
    for file in Source::all() {
        let lines = file.code().lines().count();
        if lines > MAX_LINES {
            wrong.push(format!("{}: {lines} lines, more than {MAX_LINES}", file.name));
        }
        if !file.text.starts_with("//!") && file.name != "lib.rs" {
            wrong.push(format!("{}: no `//!` line at the top", file.name));
        }
        let stem = file.name.rsplit('/').next().unwrap_or_default();
        if ["utils.rs", "util.rs", "helpers.rs", "common.rs", "misc.rs"].contains(&stem) {
            wrong.push(format!("{}: name it after what it holds", file.name));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// One file under `src`.
struct Source {
    /// Path below `src`, with `/`.
    name: String,
    text: String,
}

impl Source {
    fn all() -> Vec<Source> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut files = Vec::new();
        collect(&root, &mut files);
        files.sort();
        let read = |path: PathBuf| {
            let below = path.strip_prefix(&root).expect("collected below root");
            let name = below.to_string_lossy().replace('\\', "/");
            Source { name, text: fs::read_to_string(&path).expect("readable source") }
        };
        files.into_iter().map(read).collect()
    }

    /// The top-level folder, or `None` for `main.rs` and `lib.rs`.
    fn room(&self) -> Option<&str> {
        self.name.split_once('/').map(|(room, _)| room)
    }

    /// The text without the unit tests at the end.
    fn code(&self) -> &str {
        self.text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default()
    }

    /// Rooms named as `crate::room`, with line numbers; comments are skipped.
    fn crate_paths(&self) -> Vec<(usize, String)> {
        let mut paths = Vec::new();
        for (index, line) in self.lines() {
            // Two levels up is another room by a back door: report it as the name it has.
            if line.contains("super::super") {
                paths.push((index, "super::super".to_owned()));
            }
            for rest in line.split("crate::").skip(1) {
                let name = rest.split(|c: char| !c.is_alphanumeric() && c != '_').next();
                paths.push((index, name.unwrap_or_default().to_owned()));
            }
        }
        paths
    }

    fn first_mention(&self, krate: &str) -> Option<usize> {
        let path = format!("{krate}::");
        self.lines().find(|(_, line)| line.contains(&path)).map(|(index, _)| index)
    }

    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let numbered = self.text.lines().enumerate().map(|(index, line)| (index + 1, line));
        numbered.filter(|(_, line)| !line.trim_start().starts_with("//"))
    }
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("readable folder") {
        let path = entry.expect("readable entry").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}
