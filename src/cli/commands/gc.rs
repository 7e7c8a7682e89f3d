//! `sft-run gc`: removes stage outputs that nothing refers to.

use crate::artifacts::{Collect, Entry, Fate, Lock, Store};
use crate::base::digest::Digest;
use crate::cli::arguments::GcArguments;
use crate::cli::environment;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::open::cache_folder;
use crate::cli::session::Session;
use crate::report::numbers::bytes;
use crate::report::tables;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::SystemTime;

/// Runs the command.
pub(in crate::cli) fn run(session: &Session, arguments: &GcArguments) -> Result<Exit, Failure> {
    let given = &arguments.recipe;
    if !given.exists() {
        let help = "name the recipe or its folder; nothing was removed";
        return Err(Failure::wrong(format!("there is no `{}`", given.display()), help));
    }
    // The parent of a bare file name is the empty path, which no folder can be read at.
    let parent = given.parent().filter(|parent| !parent.as_os_str().is_empty());
    let folder = if given.is_dir() { given } else { parent.unwrap_or(Path::new(".")) };
    let root = cache_folder(session, arguments.cache_dir.as_deref(), folder);
    if !root.is_dir() {
        let help = "name the recipe or its folder, or the cache with --cache-dir";
        return Err(Failure::wrong(format!("there is no cache in `{}`", root.display()), help));
    }
    let store = Store::open(&root);
    let names = names(&store, folder)?;
    let keep = names.keys().copied().collect();
    let how = Collect { dry: arguments.dry_run, partial: arguments.partial };
    let mut entries = store.collect(&keep, how)?;
    // What takes most is what one looks for.
    entries.sort_by_key(|entry| std::cmp::Reverse(entry.bytes));
    let shown = Shown { entries: &entries, names: &names, dry: arguments.dry_run, root: &root };
    let terminal = &session.terminal;
    terminal.result(&if terminal.json {
        format!("{:#}", shown.json())
    } else {
        shown.text(terminal.table_width())
    });
    Ok(Exit::Done)
}

/// Every artifact that something refers to, and what refers to it.
fn names(store: &Store, folder: &Path) -> Result<BTreeMap<Digest, String>, Failure> {
    let used = store.used_by_last_runs()?;
    let mut names: BTreeMap<Digest, String> =
        used.into_iter().map(|digest| (digest, "a recipe's last run".to_owned())).collect();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.extension().is_none_or(|ending| ending != "lock") {
            continue;
        }
        let lock = match Lock::read(&path) {
            Ok(lock) => lock,
            // Other programs have lock files too; a recipe's own must be readable.
            Err(_) if !belongs_to_a_recipe(&path) => None,
            Err(error) => return Err(error.into()),
        };
        let name = entry.file_name().to_string_lossy().into_owned();
        let locked = lock.iter().flat_map(|lock| lock.stages.values());
        names.extend(locked.map(|stage| (stage.fingerprint, name.clone())));
    }
    Ok(names)
}

/// Whether a recipe of the same name stands beside the lock file `path`.
fn belongs_to_a_recipe(path: &Path) -> bool {
    ["yaml", "yml", "yaml.j2"].iter().any(|ending| path.with_extension(ending).is_file())
}

struct Shown<'a> {
    entries: &'a [Entry],
    names: &'a BTreeMap<Digest, String>,
    dry: bool,
    root: &'a Path,
}

impl Shown<'_> {
    fn with(&self, fate: Fate) -> (usize, u64) {
        let entries = self.entries.iter().filter(|entry| entry.fate == fate);
        entries.fold((0, 0), |(count, bytes), entry| (count + 1, bytes + entry.bytes))
    }

    fn why(&self, entry: &Entry) -> String {
        match entry.fate {
            Fate::Removed => (if self.dry { "would go" } else { "removed" }).to_owned(),
            Fate::Kept => {
                let name = self.names.get(&entry.fingerprint).map_or("", String::as_str);
                format!("stays: {name} names it")
            }
            Fate::Busy => "stays: another process uses it".to_owned(),
            Fate::Resumable => {
                "stays: an interrupted training goes on from it (--partial removes it)".to_owned()
            }
        }
    }

    fn text(&self, width: usize) -> String {
        let row = |entry: &Entry| {
            let (kind, name) = entry.name.split_once('/').unwrap_or(("", &entry.name));
            let name = name.chars().take(8).collect();
            vec![kind.to_owned(), name, bytes(entry.bytes), age(entry.modified), self.why(entry)]
        };
        let rows: Vec<_> = self.entries.iter().map(row).collect();
        let table = if rows.is_empty() {
            String::new()
        } else {
            tables::words_within(width, &["output", "", "size", "age", ""], rows) + "\n"
        };
        let (gone, gone_bytes) = self.with(Fate::Removed);
        let all: u64 = self.entries.iter().map(|entry| entry.bytes).sum();
        format!(
            "{table}{} {gone} outputs ({}), {} stay ({}): {}",
            if self.dry { "would remove" } else { "removed" },
            bytes(gone_bytes),
            self.entries.len() - gone,
            bytes(all - gone_bytes),
            self.root.display()
        )
    }

    fn json(&self) -> Value {
        let entry = |entry: &Entry| {
            json!({
                "name": entry.name,
                "bytes": entry.bytes,
                "age_seconds": seconds(entry.modified),
                "removed": entry.fate == Fate::Removed,
                "why": self.why(entry),
            })
        };
        let (removed, removed_bytes) = self.with(Fate::Removed);
        json!({
            "cache": self.root,
            "dry_run": self.dry,
            "removed": removed,
            "removed_bytes": removed_bytes,
            "outputs": self.entries.iter().map(entry).collect::<Vec<_>>(),
        })
    }
}

/// Seconds since `time`.
fn seconds(time: SystemTime) -> f64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    (environment::seconds() - since.as_secs_f64()).max(0.0)
}

/// How long ago, in the largest unit that says something.
fn age(time: SystemTime) -> String {
    let minutes = seconds(time) / 60.0;
    let units = [("day", 1440.0), ("hour", 60.0), ("minute", 1.0)];
    for (unit, size) in units {
        let count = (minutes / size).floor();
        if count >= 1.0 {
            return format!("{count} {unit}{}", if count > 1.0 { "s" } else { "" });
        }
    }
    "just now".to_owned()
}
